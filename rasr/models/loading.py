"""Puts a net together again from what was written of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from torch import nn

from rasr.backbones.lora import load_trainable
from rasr.backbones.one_step import OneStepBackbone
from rasr.errors import RasrError
from rasr.models.finding import find_fusion_file, find_weights
from rasr.models.parts import build_parts
from rasr.models.weight_files import read_weights, with_fusion_prefix
from rasr.pretrained import is_hub_id

Net = TypeVar("Net", bound=nn.Module)


def load_net(
    net_class: type[Net],
    weights: str | Path | None = None,
    *,
    backbone: str | None = None,
    osediff_weights: str | Path | None = None,
    fusion: str | None = None,
    merge: bool = True,
    **hub_options: object,
) -> Net:
    """Reads a folder of `RASRNet.save_pretrained`, a weight file, a training checkpoint or a bare backbone.

    Args:
        net_class: `RASRNet`.
        weights: directory or hub id (`owner/name`) of a net or of a backbone alone, `.safetensors` of
            `save_weights`, or `.ckpt` of training; None is what comes with the repository.
        backbone: directory or hub id that replaces the backbone of the weights.
        osediff_weights: file that replaces the one which the file names, or is merged into the backbone.
        fusion: which of a folder's fusions (`rasr.fusion.registry`); None is `correspondence` where the
            folder has it, else `residual`. A file has one.
        merge: freeze the net and fold a residual fusion's LoRA into its layers: faster, but such a net can be
            neither trained nor saved.
        hub_options: of `huggingface_hub.snapshot_download`, such as `revision`.

    Raises:
        RasrError: missing, damaged or foreign file, no backbone, or a hub out of reach.
    """
    path = find_weights(weights, **hub_options)
    file = find_fusion_file(path, fusion) if path.is_dir() else path
    if file is None:
        if backbone is not None:
            raise RasrError(f"weights={path} is a backbone without a fusion; leave out backbone={backbone}")
        return net_class(OneStepBackbone.from_pretrained(str(path), osediff_weights=osediff_weights))
    config, tensors = read_weights(file)
    if fusion is not None and config.fusion != fusion:
        raise RasrError(f"{file} holds the fusion {config.fusion}; leave out fusion={fusion}, or give others")
    name = backbone or (str(path) if path.is_dir() else config.backbone)
    if not name:
        raise RasrError(f"{path} names no backbone; add backbone=DIRECTORY_OR_HUB_ID")
    if backbone is None and not Path(name).exists() and not is_hub_id(name):
        raise RasrError(f"{path} was trained over the backbone {name}, which is gone; add backbone=DIRECTORY")
    osediff_weights = osediff_weights or config.osediff_weights
    if osediff_weights is not None and not Path(osediff_weights).is_file():
        raise RasrError(
            f"{path} needs the OSEDiff weights {osediff_weights}, which are not there; add "
            "osediff_weights=FILE"
        )
    given = None if osediff_weights is None else str(osediff_weights)
    config = replace(config, backbone=name, osediff_weights=given)
    built, made = build_parts(config)
    net = net_class(built, made, color_fix=config.color_fix)
    net.config = config
    load_trainable(net, with_fusion_prefix(tensors), source=str(file))
    if path.is_dir() and backbone is None and weights is not None:
        net.config = replace(net.config, backbone=str(weights))  # a hub id, not the cache that it lies in
    if merge:
        net.fusion.merge()
        net.requires_grad_(False)
    return net.eval()
