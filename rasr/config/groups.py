"""Which values the keys within groups take, such as `trainer.max_steps`; conf/ explains what they are.

Only groups that name classes of this repository, of torch or of Lightning are looked at: a class of the
user's own may mean something else by the same key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rasr.config.correspondence import CorrespondenceConfig
from rasr.config.injection import InjectionConfig
from rasr.config.keys import Spec, check_value, specs_of
from rasr.config.net import RASRNetConfig

_KNOWN = ("rasr.", "torch.", "pytorch_lightning.")


def _whole(least: int = 1, *, null: bool = False) -> Spec:
    return Spec("", "whole", null, least)


def _number(least: float | None = None, most: float | None = None, *, null: bool = False) -> Spec:
    return Spec("", "number", null, least, most)


def _choice(*choices: str) -> Spec:
    return Spec("", "choice", False, choices=choices)


_FLAG = Spec("", "flag", False)
_TEXT = Spec("", "text", False)
_TEXT_OR_NULL = Spec("", "text", True)

GROUP_KEYS: dict[str, Spec] = {
    "trainer.num_nodes": _whole(),
    "trainer.max_steps": _whole(),
    "trainer.max_epochs": _whole(-1, null=True),
    "trainer.gradient_clip_val": _number(0, null=True),
    "trainer.accumulate_grad_batches": _whole(),
    "trainer.val_check_interval": _number(0, null=True),
    "trainer.check_val_every_n_epoch": _whole(null=True),
    "trainer.log_every_n_steps": _whole(0),
    "trainer.num_sanity_val_steps": _whole(-1),
    "optim.optimizer.lr": _number(),  # above 0, which rasr.training.setup checks
    "optim.optimizer.weight_decay": _number(0),
    "optim.warmup_steps": _whole(0),
    "optim.decay": _choice("constant", "cosine"),
    "module.grad_norm_every": _whole(0),
    "module.conditioning_scale": _number(0),
    "module.val_conditioning_scale": _number(0),
    "data.batch_size": _whole(),
    "data.num_workers": _whole(0),
    "data.max_overlap": _number(0, 1),
    "data.two_crops": _FLAG,
    "data.random_crop": _FLAG,
    "data.hflip": _FLAG,
    "data.views": _whole(),
    "data.val_views": _whole(),
    "loss.weights.*": _number(0),
    "loss.gram_layers.*": _number(0),
    "loss.vgg_weights": _TEXT_OR_NULL,
    "discriminator.weights": _TEXT_OR_NULL,
    "discriminator.width": _whole(),
    "discriminator.augment": _FLAG,
    "callbacks.checkpoint.every_n_train_steps": _whole(),
    "callbacks.checkpoint.save_top_k": _whole(-1),
    "callbacks.progress.refresh_rate": _whole(0),
    "callbacks.ema.decay": _number(0, 1),
    "callbacks.panels.rows": _whole(0),
    "method.use_branch": _FLAG,
    "method.ref_size": _whole(null=True),
    "method.seed": _whole(0),
    "method.chain.n_steps": _whole(),
    "method.chain.guidance_scale": _number(),
    "method.chain.conditioning_scale": _number(0),
    "method.chain.start": _choice("lr", "noise"),
    "fallback.generator.size": _whole(null=True),
    "fallback.generator.n_steps": _whole(),
    "fallback.generator.seed": _whole(0),
    "encoder.weights": _TEXT_OR_NULL,
    "encoder.img_size": _whole(),
    "encoder.pool": _choice("head", "avg"),
    "encoder.precision": _choice("fp32", "bf16"),
    "encoder.device": _TEXT,
    "encoder.seed": _whole(0),
    **{f"refir.{name}": spec for name, spec in specs_of(InjectionConfig).items()},
    # A backbone that is built, not named, is a mapping.
    **{f"model.{name}": spec for name, spec in specs_of(RASRNetConfig).items() if name != "backbone"},
}
"""{dotted key: its values}; `*` is every key there."""

_OF_FUSIONS = {"correspondence": CorrespondenceConfig}


def check_groups(cfg: Mapping[str, Any]) -> None:
    """Refuses values within groups that cannot be meant.

    Args:
        cfg: a command's configuration; keys that it does not have are passed over.

    Raises:
        RasrError: one line that names the key.
    """
    for key, spec in GROUP_KEYS.items():
        for name, value in find(cfg, key):
            check_value(name, value, spec)
    for _, fusion in find(cfg, "model.fusion"):
        for name, spec in specs_of(_OF_FUSIONS[fusion]).items() if fusion in _OF_FUSIONS else ():
            for path, value in find(cfg, f"model.fusion_settings.{name}"):
                check_value(path, value, spec)


def find(node: Mapping[str, Any], key: str, above: str = "") -> Iterator[tuple[str, Any]]:
    """Every (dotted name, value) of a configuration that a key of `GROUP_KEYS` stands for."""
    first, _, rest = key.partition(".")
    for name in list(node) if first == "*" else [first]:
        if name not in node:
            continue
        path = f"{above}{name}"
        if not rest:
            yield path, node[name]
        elif isinstance(node[name], Mapping) and _is_known(node[name]):
            yield from find(node[name], rest, f"{path}.")


def _is_known(node: Mapping[str, Any]) -> bool:
    target = node.get("_target_") if "_target_" in node else None
    return target is None or str(target).startswith(_KNOWN)
