"""The commands by the name of their configuration, and what Hydra is told of their keys."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import OmegaConf

from rasr.config.evaluate import EvaluateKeys
from rasr.config.groups import check_groups
from rasr.config.index import IndexKeys
from rasr.config.infer import InferKeys
from rasr.config.injection import InjectionConfig
from rasr.config.keys import check, defaults_of, specs_of
from rasr.config.tools import (
    ConvertOsediffKeys,
    DegradeKeys,
    GalleryKeys,
    InspectKeys,
    InterpolateKeys,
    KeepKeys,
    MakePretrainedKeys,
    MakeTinyKeys,
    PreviewKeys,
)
from rasr.config.train import TrainKeys

COMMANDS: dict[str, type] = {
    "train": TrainKeys,
    "infer": InferKeys,
    "index": IndexKeys,
    "evaluate": EvaluateKeys,
    "convert_osediff": ConvertOsediffKeys,
    "degrade": DegradeKeys,
    "gallery": GalleryKeys,
    "inspect": InspectKeys,
    "interpolate": InterpolateKeys,
    "keep": KeepKeys,
    "make_pretrained": MakePretrainedKeys,
    "make_tiny": MakeTinyKeys,
    "preview": PreviewKeys,
}
_WIDTH = 108


def check_command(cfg: Mapping[str, Any], name: str, groups: Collection[str]) -> None:
    """Refuses what a command's keys cannot be; see `rasr.config.keys.check`.

    Args:
        cfg: its configuration.
        name: of the configuration, such as "infer" or "tools/keep".
        groups: names of the groups that it was composed of.
    """
    name = name.removeprefix("tools/")
    is_ours = {"keys", "tool_keys"} & set(groups) and name in COMMANDS
    if is_ours and specs_of(COMMANDS[name]).keys() <= set(cfg):
        also = {"hydra", "module", *(key.split(".")[0] for key in also_of(COMMANDS[name]))}
        base = TrainKeys if name == "preview" else COMMANDS[name]
        also |= {group.split("@")[-1].split("/")[0] for group in groups} | set(specs_of(base))
        check(cfg, COMMANDS[name], also=also)
        check_groups(cfg)


def also_of(keys: type) -> dict[str, tuple[str, str]]:
    """Groups and keys within them that `--help` lists too: {name: (default as shown, meaning)}."""
    return getattr(keys, "ALSO", {})


def keys_help(name: str) -> str:
    """The list of a command's keys for `--help`: `name=default  meaning`, wrapped."""
    keys = COMMANDS[name]
    defaults = defaults_of(keys)
    rows = [(f"{key}={_shown(defaults[key])}", spec.help) for key, spec in specs_of(keys).items()]
    rows += [(f"{key}={default}", text) for key, (default, text) in also_of(keys).items()]
    width = min(26, max(len(left) for left, _ in rows) + 2)
    lines = []
    for left, text in rows:
        first, *rest = textwrap.wrap(text, _WIDTH - width - 2)
        head = f"  {left:{width}}" if len(left) < width else f"  {left}  "
        lines += [head + first, *(" " * (width + 2) + line for line in rest)]
    return "\n".join(lines)


def _shown(default: Any) -> str:
    if isinstance(default, list):
        return f"[{','.join(map(str, default))}]"
    if default is None or isinstance(default, bool):
        return {None: "null", True: "true", False: "false"}[default]
    return str(default) or "''"


def _tell_hydra() -> None:
    store = ConfigStore.instance()
    for name, keys in COMMANDS.items():
        group = "keys" if name in ("train", "infer", "index", "evaluate") else "tool_keys"
        store.store(
            group=group, name=name, node=defaults_of(keys), package="_global_", provider="rasr.config"
        )
    injection = {"_target_": "rasr.refir.InjectionConfig", **defaults_of(InjectionConfig)}
    store.store(group="keys", name="injection", node=injection, provider="rasr.config")
    OmegaConf.register_new_resolver("keys_help", keys_help, replace=True)


_tell_hydra()
