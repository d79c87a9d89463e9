"""RASRNet's weight files.

A weight file is one safetensors file with the trainable tensors (about 50 MB on SD-2.1) and, as JSON in its
metadata, the `RASRNetConfig` it needs; the frozen backbone stays where it is. Training checkpoints hold the
same two things among others and are read too, and so are folders with both (`rasr.models.pretrained_folder`).
Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rasr.errors import RasrError, one_line
from rasr.fusion.residual import ResidualFusion
from rasr.image_io import atomic_path
from rasr.models.backbone import OneStepBackbone
from rasr.models.build import RASRNetConfig, build_rasr_net
from rasr.models.lora import (
    load_trainable,
    lora_layers,
    trainable_parameters,
    trainable_state_dict,
)
from rasr.models.pretrained_folder import find_fusion_file, find_weights
from rasr.models.rasr_net import RASRNet
from rasr.pretrained import is_hub_id

METADATA_KEY = "rasr_net_config"
BRANCH_PREFIX, FUSION_PREFIX = "branch.", "fusion."
"""Files say `branch.` for the residual's tensors, as they did when there was no other fusion."""
EMA_KEY = "ema_state_dict"
"""In training checkpoints: the averaged trainable tensors of the net."""


def save_weights(net: RASRNet, path: str | Path) -> Path:
    """Writes what the net has learnt: one safetensors file, or a diffusers directory for a backbone.

    Args:
        net: a net from one of the builders.
        path: target without suffix; a fusion goes to `path.safetensors`, a backbone to the directory `path`.

    Returns:
        The file or directory written; a file appears only when complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if net.fusion is None:
        net.backbone.save_pretrained(path)
        return path
    target = path.with_suffix(".safetensors")
    write_fusion(net, target)
    return target


def write_fusion(
    net: RASRNet, path: Path, *, backbone: str | None = None, dtype: torch.dtype | None = None
) -> None:
    """Writes what the fusion has learnt, and the net's configuration; the file appears only when complete.

    Args:
        net: a net with a fusion that `check_has_fusion_to_save` lets pass.
        path: target.
        backbone: what the file names as its backbone; None is the net's own.
        dtype: of the tensors on disk; None is their own.
    """
    check_has_fusion_to_save(net)
    config = net.config
    if backbone is not None:
        # The folder's file is complete in itself: a backbone built before the net has its time step alone.
        config = replace(config, backbone=backbone, timestep=net.backbone.timestep)
    prefix = BRANCH_PREFIX if config.fusion == ResidualFusion.name else FUSION_PREFIX
    tensors = {
        prefix + name.removeprefix(FUSION_PREFIX): tensor.to(dtype or tensor.dtype)
        for name, tensor in trainable_state_dict(net).items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(asdict(config))})


def check_has_fusion_to_save(net: RASRNet) -> None:
    """Raises a ValueError unless the fusion still has what training changed, apart from the rest."""
    if isinstance(net.fusion, ResidualFusion) and not lora_layers(net.fusion):
        raise ValueError("this net's LoRA is merged and cannot be saved; load it with merge=False")
    if not trainable_parameters(net.fusion):
        raise ValueError("nothing of this net's fusion is trainable, so there is nothing to be saved")


def load_rasr_net(
    weights: str | Path | None = None,
    *,
    backbone: str | None = None,
    osediff_weights: str | Path | None = None,
    fusion: str | None = None,
    merge: bool = True,
    **hub_options: object,
) -> RASRNet:
    """Reads a folder of `RASRNet.save_pretrained`, a weight file, a training checkpoint or a bare backbone.

    Args:
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
        return RASRNet(OneStepBackbone.from_pretrained(str(path), osediff_weights=osediff_weights))
    config, tensors = _read_weights(file)
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
    net = build_rasr_net(**asdict(replace(config, backbone=name, osediff_weights=osediff_weights)))
    load_trainable(net, with_fusion_prefix(tensors), source=str(file))
    if path.is_dir() and backbone is None and weights is not None:
        net.config = replace(net.config, backbone=str(weights))  # a hub id, not the cache that it lies in
    if merge:
        net.fusion.merge()
        net.requires_grad_(False)
    return net.eval()


def with_fusion_prefix(tensors: Mapping[str, Tensor], before: str = "") -> dict[str, Tensor]:
    """The tensors of a file by the names that the net has for them.

    Args:
        tensors: by the file's names.
        before: what stands before the net's own names.
    """
    old, new = before + BRANCH_PREFIX, before + FUSION_PREFIX
    return {
        new + name.removeprefix(old) if name.startswith(old) else name: tensor
        for name, tensor in tensors.items()
    }


def _read_weights(path: Path) -> tuple[RASRNetConfig, dict[str, Tensor]]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                raw = json.loads((file.metadata() or {})[METADATA_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            raw, tensors = checkpoint[METADATA_KEY], checkpoint[EMA_KEY]
        raw = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RasrError(f"{path} is not a RASR weight file; give one written by train.py") from error
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError, OSError) as error:
        raise RasrError(
            f"{path} is damaged or not a weight file ({one_line(error, first=True)}); copy or train it again"
        ) from error
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise RasrError(f"{path} holds NaN or infinity (tensor {name}); take an earlier checkpoint")
    try:
        return RASRNetConfig(**raw), tensors
    except TypeError as error:
        raise RasrError(
            f"{path} is of another version of RASR ({error}); bring the project up to date"
        ) from error
