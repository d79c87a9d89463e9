"""Building RASRNet from a configuration, and its weight files.

A weight file is one safetensors file with the trainable tensors (about 50 MB on SD-2.1) and, as JSON in its
metadata, the `RASRNetConfig` it needs; the frozen backbone stays where it is. Training checkpoints hold the
same two things among others and are read too. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from pickle import UnpicklingError

import torch
from huggingface_hub.utils import HFValidationError, validate_repo_id
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rasr.errors import RasrError
from rasr.image_io import atomic_path
from rasr.models.backbone import DEFAULT_HUB_ID, OneStepBackbone
from rasr.models.lora import load_trainable, lora_layers, merge_lora, trainable_state_dict
from rasr.models.rasr_net import RASRNet
from rasr.models.reference_branch import ReferenceBranch

METADATA_KEY = "rasr_net_config"
EMA_KEY = "ema_state_dict"
"""In training checkpoints: the averaged trainable tensors of the net."""


@dataclass(frozen=True)
class RASRNetConfig:
    """Everything besides tensors that a RASRNet is made of; plain values, kept in every weight file."""

    backbone: str = DEFAULT_HUB_ID
    """Diffusers-format directory or hub id of the base weights."""
    osediff_weights: str | None = None
    """`osediff.pkl` or its safetensors form, merged into the backbone but not into the branch."""
    timestep: int | None = None
    """The backbone's one diffusion time; None is the schedule's last (999)."""
    rank: int = 4
    """LoRA rank of the branch."""
    lora_alpha: float = 8
    """LoRA scale times rank."""
    lora_layers: tuple[str, ...] | None = None
    """Ends of the names of the branch's layers with LoRA; None is every layer of its down blocks."""
    ref_timestep: int = 999
    """Diffusion time at which the branch sees the reference."""
    ref_prompt: str | None = ""
    """Text of the branch; None skips its cross-attention."""
    block_weights: tuple[float, ...] = (1.0, 1.0, 1.0, 0.0)
    """Injection strength per decoder block."""
    text_blocks: tuple[int, ...] = (3,)
    """Decoder blocks that keep text when a reference is given."""
    scale: int = 4
    """Enlargement per side that the net was trained for."""


def build_rasr_net(
    backbone: str | OneStepBackbone = DEFAULT_HUB_ID,
    *,
    osediff_weights: str | Path | None = None,
    timestep: int | None = None,
    rank: int = 4,
    lora_alpha: float = 8,
    lora_layers: Sequence[str] | None = None,
    ref_timestep: int = 999,
    ref_prompt: str | None = "",
    block_weights: Sequence[float] = (1.0, 1.0, 1.0, 0.0),
    text_blocks: Sequence[int] = (3,),
    scale: int = 4,
) -> RASRNet:
    """A RASRNet with a freshly initialised branch; the arguments are those of `RASRNetConfig`.

    `backbone` may also be a base backbone already built; its weight files then name no backbone to load
    again. OSEDiff's weights are merged into it in place.
    """
    config = RASRNetConfig(
        backbone=backbone if isinstance(backbone, str) else "",
        osediff_weights=None if osediff_weights is None else str(osediff_weights),
        timestep=timestep,
        rank=rank,
        lora_alpha=lora_alpha,
        lora_layers=None if lora_layers is None else tuple(lora_layers),
        ref_timestep=ref_timestep,
        ref_prompt=ref_prompt,
        block_weights=tuple(block_weights),
        text_blocks=tuple(text_blocks),
        scale=scale,
    )
    if rank < 1:
        raise RasrError(f"rank={rank} is no LoRA; give at least 1 (the paper has 4)")
    if isinstance(backbone, str):
        backbone = OneStepBackbone.from_pretrained(backbone, timestep=timestep)
    n_steps = backbone.noise_scheduler.config.num_train_timesteps
    if not 0 <= ref_timestep < n_steps:
        raise RasrError(f"ref_timestep={ref_timestep} is outside the schedule; give 0 .. {n_steps - 1}")
    branch = ReferenceBranch.from_unet(
        backbone.unet,
        rank,
        lora_alpha=lora_alpha,
        lora_layers=config.lora_layers,
        timestep=ref_timestep,
        ref_prompt=ref_prompt,
    )
    # The branch and its VAE encoder are copies of the base weights: they come before the merge.
    branch.attach(backbone, copy_vae=osediff_weights is not None)
    if osediff_weights is not None:
        backbone.merge_osediff(osediff_weights)
    net = RASRNet(backbone, branch, block_weights=config.block_weights, text_blocks=config.text_blocks)
    net.config = config
    return net


def build_backbone_net(backbone: str | OneStepBackbone) -> RASRNet:
    """A RASRNet without a branch whose VAE and UNet learn: how a backbone is trained from nothing."""
    if isinstance(backbone, str):
        backbone = OneStepBackbone.from_pretrained(backbone)
    backbone.make_trainable()
    return RASRNet(backbone)


def save_weights(net: RASRNet, path: str | Path) -> Path:
    """Writes what the net has learnt: one safetensors file, or a diffusers directory for a backbone.

    Args:
        net: a net from one of the builders.
        path: target without suffix; a branch goes to `path.safetensors`, a backbone to the directory `path`.

    Returns:
        The file or directory written; a file appears only when complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if net.branch is None:
        net.backbone.save_pretrained(path)
        return path
    if not lora_layers(net.branch):
        raise ValueError("this net's LoRA is merged and cannot be saved; load it with merge=False")
    target = path.with_suffix(".safetensors")
    metadata = {METADATA_KEY: json.dumps(asdict(net.config))}
    with atomic_path(target) as temporary:
        save_file(trainable_state_dict(net), temporary, metadata=metadata)
    return target


def load_rasr_net(
    weights: str | Path,
    *,
    backbone: str | None = None,
    osediff_weights: str | Path | None = None,
    merge: bool = True,
) -> RASRNet:
    """Reads a weight file, a training checkpoint or a bare backbone directory.

    Args:
        weights: `.safetensors` of `save_weights`, `.ckpt` of training, or a diffusers directory (a net
            without a branch).
        backbone: directory or hub id that replaces the one which the file names.
        osediff_weights: file that replaces the one which the file names, or is merged into a bare backbone.
        merge: fold the branch's LoRA into its layers: faster, but such a net can be neither trained nor
            saved.

    Raises:
        RasrError: missing, damaged or foreign file, or no backbone.
    """
    path = Path(weights)
    if path.is_dir():
        return RASRNet(OneStepBackbone.from_pretrained(str(path), osediff_weights=osediff_weights))
    if not path.is_file():
        raise RasrError(
            f"weights={path} does not exist; give a .safetensors or .ckpt file of training or a backbone "
            "directory"
        )
    config, tensors = _read_weights(path)
    name = backbone or config.backbone
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
    load_trainable(net, tensors, source=str(path))
    if merge:
        merge_lora(net.branch)
        net.requires_grad_(False)
    return net.eval()


def is_hub_id(name: str) -> bool:
    """Whether a name can be a hub repository; a path of another depth than owner/name cannot."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def _read_weights(path: Path) -> tuple[RASRNetConfig, dict[str, Tensor]]:
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                raw = json.loads((file.metadata() or {})[METADATA_KEY])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
            raw, tensors = checkpoint[METADATA_KEY], checkpoint[EMA_KEY]
    except (KeyError, TypeError) as error:
        raise RasrError(f"{path} is not a RASR weight file; give one written by train.py") from error
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError, OSError) as error:
        raise RasrError(
            f"{path} is damaged or not a weight file ({error}); copy or train it again"
        ) from error
    raw = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    return RASRNetConfig(**raw), tensors
