"""OSEDiff's published weights: LoRA in UNet and VAE encoder plus a trained `conv_in`, read and merged.

Reads the official `osediff.pkl` (a torch-saved dict, loaded without running anything in it) and the same
content as safetensors (`python -m rasr.tools convert_osediff`). Names must match the networks exactly: a key
that is missing or left over is an error, never a guess. Merging gives the same output as the adapters to
1e-4, faster, and leaves no trace of peft that could confuse the reference branch. Nothing is trained here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from rasr.backbones.lora import add_lora, check_keys, merge_lora, remove_lora
from rasr.errors import RasrError
from rasr.image_io import atomic_path

LORA_ALPHA = 8
"""peft's default, which OSEDiff leaves as it is: at its rank 4 the adapters' updates count twice."""

METADATA_KEY = "osediff"

MEND = "give OSEDiff's own osediff.pkl, or what python -m rasr.tools convert_osediff made of it"


@dataclass(frozen=True)
class OSEDiffWeights:
    """The content of one file; the fields but the last are the official dictionary's entries."""

    rank_unet: int
    rank_vae: int
    unet_lora_encoder_modules: list[str]
    """Names of the UNet's layers under the adapter `default_encoder`."""
    unet_lora_decoder_modules: list[str]
    """The same for `default_decoder`."""
    unet_lora_others_modules: list[str]
    """The same for `default_others`."""
    vae_lora_encoder_modules: list[str]
    """The VAE's layers under `default_encoder`; the official file names some of them twice."""
    state_dict_unet: dict[str, Tensor]
    """Named as in the UNet with its adapters: everything with `lora` or `conv_in` in its name."""
    state_dict_vae: dict[str, Tensor]
    """The same for the VAE: everything with `lora` in its name."""
    source: str
    """File that error messages name."""


ENTRIES = tuple(field.name for field in fields(OSEDiffWeights) if field.name != "source")
TENSOR_ENTRIES = {"unet.": "state_dict_unet", "vae.": "state_dict_vae"}
"""Prefix in a safetensors file -> entry of the official dictionary."""


def read_osediff(path: str | Path) -> OSEDiffWeights:
    """Reads an official file or its safetensors conversion; the suffix tells which.

    Raises:
        RasrError: missing, damaged or foreign file, or one that holds more than tensors and plain values.
    """
    path = Path(path)
    if not path.is_file():
        raise RasrError(f"osediff_weights={path} does not exist; {MEND}")
    try:
        entries = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except RasrError:
        raise
    except UnpicklingError as error:
        raise RasrError(
            f"{path} is damaged or holds code besides tensors, none of which was run; {MEND}"
        ) from error
    except Exception as error:  # torch.load raises nearly any type on damaged files
        raise RasrError(f"{path} is damaged or no OSEDiff weight file; {MEND}") from error
    check_keys(entries, ENTRIES, source=str(path), what="not the entries of an OSEDiff file", mend=MEND)
    for name, value in entries.items():
        if not _is_valid(name, value):
            raise RasrError(f"{path}: entry {name} is not what an OSEDiff file has there; {MEND}")
    return OSEDiffWeights(**entries, source=str(path))


def save_osediff(weights: OSEDiffWeights, path: str | Path) -> None:
    """Writes the safetensors form: tensors under `unet.` and `vae.`, the rest as JSON in the metadata.

    Args:
        weights: what `read_osediff` returned.
        path: file ending in `.safetensors`; it appears only when complete.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise RasrError(f"{path} must end in .safetensors; give such a name")
    entries = {name: value for name, value in asdict(weights).items() if name in ENTRIES}
    # A copy each: safetensors refuses tensors that share memory, which a pickle may hold.
    tensors = {
        prefix + name: tensor.clone(memory_format=torch.contiguous_format)
        for prefix, entry in TENSOR_ENTRIES.items()
        for name, tensor in entries.pop(entry).items()
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(entries)})


def load_adapters(weights: OSEDiffWeights, unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
    """Adds the adapters to the base networks through peft, unmerged and frozen, and copies all tensors.

    Both networks are left as they were if anything does not fit.

    Raises:
        RasrError: a layer or tensor that the networks lack, that the file lacks, or of another shape.
    """
    # Per network: its name, the layers of each adapter, their rank, the tensors, the marks of their names.
    unet_adapters = {
        f"default_{part}": getattr(weights, f"unet_lora_{part}_modules")
        for part in ("encoder", "decoder", "others")
    }
    vae_adapters = {"default_encoder": weights.vae_lora_encoder_modules}
    jobs = [
        (unet, "UNet", unet_adapters, weights.rank_unet, weights.state_dict_unet, ("lora", "conv_in")),
        (vae, "VAE", vae_adapters, weights.rank_vae, weights.state_dict_vae, ("lora",)),
    ]
    copies = []
    try:
        for net, name, adapters, rank, tensors, marks in jobs:
            source = f"{weights.source} ({name})"
            _check_layers(net, adapters, source)
            for adapter, layers in adapters.items():
                if layers:
                    add_lora(net, layers, rank=rank, alpha=LORA_ALPHA, adapter=adapter)
            wanted = {key: p for key, p in net.named_parameters() if any(mark in key for mark in marks)}
            check_keys(tensors, wanted, source=source, mend=f"use its base model, or {MEND}")
            for key, parameter in wanted.items():
                _check_tensor(tensors[key], parameter, key, source)
                copies.append((parameter, tensors[key]))
    except RasrError:
        remove_lora(unet)
        remove_lora(vae)
        raise
    with torch.no_grad():
        for parameter, tensor in copies:
            parameter.copy_(tensor)
    unet.requires_grad_(False)
    vae.requires_grad_(False)


def merge_osediff(path: str | Path, unet: UNet2DConditionModel, vae: AutoencoderKL) -> None:
    """Reads a file and merges it into the base networks, in place; see `read_osediff`, `load_adapters`."""
    load_adapters(read_osediff(path), unet, vae)
    merge_lora(unet)
    merge_lora(vae)


def _read_pickle(path: Path) -> dict[str, Any]:
    entries = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(entries, Mapping):
        raise RasrError(f"{path} holds a {type(entries).__name__} and no dictionary; {MEND}")
    return dict(entries)


def _read_safetensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        entries = json.loads((file.metadata() or {})[METADATA_KEY])
        entries |= {entry: {} for entry in TENSOR_ENTRIES.values()}
        for name in file.keys():  # noqa: SIM118 - the file is no dictionary
            prefix = name.split(".")[0] + "."
            if prefix not in TENSOR_ENTRIES:
                raise RasrError(f"{path}: tensor {name} belongs to neither UNet nor VAE; {MEND}")
            entries[TENSOR_ENTRIES[prefix]][name.removeprefix(prefix)] = file.get_tensor(name)
    return entries


def _is_valid(entry: str, value: Any) -> bool:
    if entry.startswith("rank_"):
        return type(value) is int and value > 0
    if entry.startswith("state_dict_"):
        return isinstance(value, Mapping) and all(
            isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in value.items()
        )
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def _check_layers(net: nn.Module, adapters: Mapping[str, list[str]], source: str) -> None:
    """peft passes over names that it does not find: say so instead."""
    modules = dict(net.named_modules())
    wrong = [
        name
        for layers in adapters.values()
        for name in layers
        if not isinstance(modules.get(name), nn.Linear | nn.Conv2d)
    ]
    if wrong:
        raise RasrError(
            f"{source}: the network has no layer {wrong[0]} ({len(wrong)} such names); use its base model"
        )


def _check_tensor(tensor: Tensor, parameter: Tensor, name: str, source: str) -> None:
    if tensor.shape != parameter.shape:
        raise RasrError(
            f"{source}: tensor {name} has shape {tuple(tensor.shape)}, the network wants "
            f"{tuple(parameter.shape)}; use the base model and the ranks that it was made with"
        )
    if not tensor.is_floating_point() or not torch.isfinite(tensor).all():
        raise RasrError(f"{source}: tensor {name} holds values that are no finite numbers; copy it again")
