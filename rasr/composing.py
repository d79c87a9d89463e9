"""A command's configuration, composed inside another command."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, OverrideParseException
from omegaconf import DictConfig

from rasr.config import COMMANDS
from rasr.config.groups import check_groups
from rasr.config.keys import check
from rasr.errors import RasrError, one_line

CONF = Path(__file__).resolve().parents[1] / "conf"


def compose_command(name: str, values: Mapping[str, Any]) -> DictConfig:
    """What `NAME.py KEY=VALUE ...` would be given.

    Args:
        name: of the configuration, such as "infer".
        values: plain values by key, groups among them.

    Raises:
        RasrError: an unknown key or option, or a value that cannot be meant.
    """
    overrides = [f"{key}={_spell(value)}" for key, value in values.items()]
    ours = GlobalHydra.instance()
    outer = ours.hydra  # of the command that is running; there can be one at a time
    ours.hydra = None
    try:
        with hydra.initialize_config_dir(version_base="1.3", config_dir=str(CONF)):
            cfg = hydra.compose(name, overrides)
        check(cfg, COMMANDS[name])
        check_groups(cfg)
        return cfg
    except (ConfigCompositionException, OverrideParseException) as error:
        raise RasrError(
            f"{name}.py {' '.join(overrides)}: {one_line(error, first=True)}; see --help"
        ) from error
    finally:
        ours.hydra = outer


def _spell(value: Any) -> str:
    """A value as Hydra's grammar wants it; any path and any text survives."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    text = str(value)
    if isinstance(value, int | float) or re.fullmatch(r"[A-Za-z_][\w./-]*", text):
        return text
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
