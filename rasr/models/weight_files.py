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
from torch import Tensor, nn

from rasr.backbones.lora import trainable_state_dict
from rasr.config.net import RASRNetConfig
from rasr.errors import RasrError, one_line
from rasr.image_io import atomic_path

METADATA_KEY = "rasr_net_config"
BRANCH_PREFIX, FUSION_PREFIX = "branch.", "fusion."
"""Files say `branch.` for the residual's tensors, as they did when there was no other fusion."""
EMA_KEY = "ema_state_dict"
"""In training checkpoints: the averaged trainable tensors of the net."""


def write_fusion(
    net: nn.Module, path: Path, *, backbone: str | None = None, dtype: torch.dtype | None = None
) -> None:
    """Writes what the fusion has learnt, and the net's configuration; the file appears only when complete.

    Args:
        net: a net with a fusion that can be saved (`check_can_be_saved`).
        path: target.
        backbone: what the file names as its backbone; None is the net's own.
        dtype: of the tensors on disk; None is their own.
    """
    net.fusion.check_can_be_saved()
    config = net.config
    if backbone is not None:
        # The folder's file is complete in itself: a backbone built before the net has its time step alone.
        config = replace(config, backbone=backbone, timestep=net.backbone.timestep)
    prefix = net.fusion.file_prefix
    tensors = {
        prefix + name.removeprefix(FUSION_PREFIX): tensor.to(dtype or tensor.dtype)
        for name, tensor in trainable_state_dict(net).items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(asdict(config))})


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


def read_weights(path: Path) -> tuple[RASRNetConfig, dict[str, Tensor]]:
    """The configuration and the tensors of a weight file or of a training checkpoint.

    Raises:
        RasrError: a damaged or foreign file, or one with NaN.
    """
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
