"""Building RASRNet from a configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rasr.backbones.files import DEFAULT_HUB_ID
from rasr.backbones.one_step import OneStepBackbone
from rasr.config.net import RASRNetConfig
from rasr.models.parts import build_parts
from rasr.models.rasr_net import RASRNet


def build_rasr_net(backbone: str | OneStepBackbone = DEFAULT_HUB_ID, **settings: Any) -> RASRNet:
    """A RASRNet with a freshly initialised fusion.

    Args:
        backbone: directory or hub id; or a base backbone already built: its weight files then name no
            backbone to load again, and OSEDiff's weights are merged into it in place.
        settings: the other fields of `RASRNetConfig`.
    """
    is_name = isinstance(backbone, str)
    plain = {key: _plain(value) for key, value in settings.items()}
    config = RASRNetConfig(backbone=backbone if is_name else "", **plain)
    built, fusion = build_parts(config, None if is_name else backbone)
    net = RASRNet(built, fusion, color_fix=config.color_fix)
    net.config = config
    return net


def build_backbone_net(
    backbone: str | OneStepBackbone, trainable: Sequence[str] = ("vae", "unet")
) -> RASRNet:
    """A RASRNet without a fusion whose VAE and UNet learn: how a backbone is trained from nothing.

    Args:
        backbone: backbone, or directory or hub id of one.
        trainable: the parts that learn, of "vae" and "unet".
    """
    if isinstance(backbone, str):
        backbone = OneStepBackbone.from_pretrained(backbone)
    backbone.make_trainable(trainable)
    return RASRNet(backbone)


def _plain(value: Any) -> Any:
    """Without the containers of a configuration file, and without paths."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(_plain(each) for each in value)
    return value
