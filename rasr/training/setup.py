"""What a training run checks before it starts, and where it goes on."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from rasr.data.settings import check_crop
from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.moved import with_current_targets

logger = logging.getLogger(__name__)

# Settings that may differ between a run and its continuation.
FREE_ON_RESUME = (
    "name",
    "resume",
    "model.color_fix",
    "module.grad_norm_every",
    "trainer.default_root_dir",
    "trainer.log_every_n_steps",
    "trainer.max_steps",
    "trainer.max_epochs",
    "trainer.devices",
    "logger",
    "callbacks",
    "paths",
    "data.num_workers",
    "data.skipped",
)


def validate(cfg: DictConfig) -> None:
    """Rules that cross configuration groups; raises a RasrError that names the keys.

    The backbone's own size contract is checked when the network is built: it depends on the weights.
    """
    check_crop(cfg.gt_size, cfg.scale)
    lr = cfg.optim.optimizer.lr
    if not isinstance(lr, float | int) or lr <= 0:
        raise RasrError(f"optim.optimizer.lr={lr}; give a number above 0")
    if cfg.callbacks.ema is None:
        raise RasrError("callbacks.ema=null, but it writes the weights; callbacks.ema.decay=0 is off")
    if cfg.trainer.accelerator == "gpu" and resolve_device("auto").type == "cpu":
        raise RasrError("trainer.accelerator=gpu, but there is no GPU here; add trainer=cpu")


def check_launch(cfg: DictConfig, *, is_multirun: bool) -> None:
    """Refuses a sweep whose jobs would start further processes by themselves.

    Lightning's launcher repeats the command line for every further device, `--multirun` included, so each
    rank would run the whole sweep again (Lightning issue 11300).
    """
    is_launched = any(name in os.environ for name in ("LOCAL_RANK", "SLURM_PROCID", "TORCHELASTIC_RUN_ID"))
    devices = cfg.trainer.devices
    if is_multirun and devices != 1 and not is_launched:
        raise RasrError(
            f"a sweep with trainer.devices={devices} cannot start its own processes; give trainer.devices=1, "
            "or let a launcher start a process per device (hydra/launcher=submitit_slurm, or torchrun)"
        )


def find_checkpoint(cfg: DictConfig, run_config: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from.

    Args:
        cfg: composed configuration; `resume` is "auto", false, or a file.
        run_config: the same, resolved to plain values.

    Raises:
        RasrError: the named file is missing or damaged, or the run's last checkpoint has other settings.
    """
    if cfg.resume is False or cfg.resume is None:
        return None
    is_auto = cfg.resume == "auto"
    path = Path(cfg.paths.output_dir) / "checkpoints" / "last.ckpt" if is_auto else Path(cfg.resume)
    if not path.is_file():
        if is_auto:
            return None
        raise RasrError(f"resume={path} does not exist; give a checkpoint file, auto or false")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        before, step = with_current_targets(checkpoint["run_config"]), checkpoint["global_step"]
    except Exception as error:  # torch.load raises nearly any type on damaged files
        raise RasrError(
            f"{path} is damaged or no checkpoint of train.py; delete it or give resume=false"
        ) from error
    changed = changed_keys(before, run_config)
    steps = [config["trainer"]["max_steps"] for config in (before, run_config)]
    if cfg.optim.decay == "cosine" and steps[0] != steps[1]:  # the whole schedule would be another
        changed.append(f"trainer.max_steps under optim.decay=cosine: {steps[0]} -> {steps[1]}")
    changed.sort()
    if changed:
        raise RasrError(
            f"{path} was made with other settings ({', '.join(changed[:5])}); give another name=, or "
            "resume=false to start anew"
        )
    logger.info("going on from %s at step %d", path, step)
    return path


def changed_keys(before: dict[str, Any], now: dict[str, Any], prefix: str = "") -> list[str]:
    """Dotted keys whose values differ, besides `FREE_ON_RESUME`."""
    changed = []
    for key in before.keys() | now.keys():
        name = f"{prefix}{key}"
        old, new = before.get(key), now.get(key)
        if name in FREE_ON_RESUME or old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed += changed_keys(old, new, f"{name}.")
        else:
            changed.append(f"{name}: {old} -> {new}")
    return changed


def resolve_config(cfg: DictConfig) -> dict[str, Any]:
    """The configuration as plain values, without the parts that say nothing of their own."""
    run_config = OmegaConf.to_container(cfg, resolve=True)
    # The module node only ties the other groups together: it would hold every one of them a second time.
    run_config["module"] = {k: v for k, v in run_config["module"].items() if not isinstance(v, dict)}
    return run_config
