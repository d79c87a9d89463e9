"""The parts of a backbone as a diffusers-format directory: read, checked and written.

Only safetensors are read: nothing is unpickled.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ConfigMixin, DDPMScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from rasr.backbones.lora import cast_frozen
from rasr.config.net import DEFAULT_HUB_ID
from rasr.errors import RasrError, one_line
from rasr.image_io import share_by_umask
from rasr.pretrained import is_hub_id

SUBFOLDERS = ("vae", "unet", "text_encoder", "tokenizer", "scheduler")

INDEX_FILE = "model_index.json"
OSEDIFF_KEY = "_osediff_weights"
"""Entry of the index that marks a saved backbone as no base model any more."""


def load_parts(path: str, *, torch_dtype: torch.dtype, text_dtype: torch.dtype) -> dict[str, Any]:
    """The parts by the names that `OneStepBackbone` has for them.

    Args:
        path: directory or hub id.
        torch_dtype: of VAE and UNet.
        text_dtype: of the text encoder.

    Raises:
        RasrError: a part is missing, damaged or does not fit the others, or the hub is out of reach.
    """
    vae = load_vae(path, torch_dtype)
    unet = load_net(UNet2DConditionModel, path, "unet", torch_dtype=torch_dtype)
    text_encoder = load_net(CLIPTextModel, path, "text_encoder", dtype=text_dtype)
    with naming_part(path, "tokenizer"):
        tokenizer = CLIPTokenizer.from_pretrained(path, subfolder="tokenizer")
        # Without one of its files transformers makes an empty or boundless one and says nothing.
        if len(tokenizer) < text_encoder.config.vocab_size:
            raise ValueError(f"{len(tokenizer)} tokens, not {text_encoder.config.vocab_size}")
        if tokenizer.model_max_length > text_encoder.config.max_position_embeddings:
            raise ValueError("no model_max_length that fits the text encoder")
    with naming_part(path, "scheduler"):
        scheduler = DDPMScheduler.from_pretrained(path, subfolder="scheduler")
    return {
        "vae": vae,
        "unet": unet,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "noise_scheduler": scheduler,
    }


def load_vae(path: str, torch_dtype: torch.dtype) -> AutoencoderKL:
    """The VAE alone; see `load_parts`."""
    return load_net(AutoencoderKL, path, "vae", torch_dtype=torch_dtype)


def load_net(net_class: type[Any], path: str, part: str, **dtype: torch.dtype) -> Any:
    """One of the networks, complete or not at all."""
    with naming_part(path, part):
        net, report = net_class.from_pretrained(
            path, subfolder=part, use_safetensors=True, output_loading_info=True, **dtype
        )
        if report["missing_keys"]:  # the libraries only warn
            raise ValueError(f"{len(report['missing_keys'])} tensors missing")
    return net


@contextmanager
def naming_part(path: str, part: str) -> Iterator[None]:
    """Turns what diffusers and transformers raise on an incomplete or absent model into one clear line."""
    if Path(path).is_dir():
        missing = [s for s in SUBFOLDERS if not (Path(path) / s).is_dir()]
        if missing:
            raise RasrError(
                f"{path} is not a diffusers-format directory: {', '.join(missing)} missing; copy or download "
                f"all of it (of Stable Diffusion: {', '.join(SUBFOLDERS)} of {DEFAULT_HUB_ID})"
            )
    elif not Path(path).exists() and not is_hub_id(path):
        raise RasrError(
            f"there is no backbone directory {path}; give one that is there (a training writes its backbone "
            "to outputs/<name>/weights) or a hub id"
        )
    try:
        yield
    except Exception as error:  # diffusers, transformers, tokenizers and safetensors each have their own
        complete = f"give a complete diffusers-format directory (of Stable Diffusion: {DEFAULT_HUB_ID})"
        mend = f"copy or make it again, or {complete}" if Path(path).is_dir() else f"{complete} or go online"
        raise RasrError(
            f"cannot load the backbone {path!r}: its {part} ({one_line(error, first=True)}); {mend}"
        ) from error


def save_parts(
    path: Path,
    parts: dict[str, Any],
    *,
    dtype: torch.dtype | None = None,
    osediff_weights: str | None = None,
) -> None:
    """Writes the directory.

    Args:
        path: the directory.
        parts: by the names of their folders.
        dtype: of the tensors on disk; None is their own.
        osediff_weights: file that was merged into the parts, for `osediff_mark`.
    """
    index: dict[str, Any] = {"_class_name": "StableDiffusionPipeline", "safety_checker": [None, None]}
    index |= {"feature_extractor": [None, None], "requires_safety_checker": False}
    for name, part in parts.items():
        if dtype is not None and isinstance(part, nn.Module):
            part = copy.deepcopy(part).requires_grad_(False)
            cast_frozen(part, dtype)
            if isinstance(part, ConfigMixin):  # else the files would tell where this one was loaded from
                part.register_to_config(_name_or_path="")
        part.save_pretrained(path / name)
        for file in (path / name).glob("*.safetensors"):
            share_by_umask(file)
        library = "transformers" if name in ("text_encoder", "tokenizer") else "diffusers"
        index[name] = [library, type(part).__name__]
    if osediff_weights is not None:
        index[OSEDIFF_KEY] = osediff_weights
    (path / INDEX_FILE).write_text(json.dumps(index, indent=2) + "\n")


def osediff_mark(path: str) -> str | None:
    """The OSEDiff weights that a saved backbone was merged with, if any."""
    index = Path(path) / INDEX_FILE
    if not index.is_file():
        return None
    with naming_part(path, INDEX_FILE):
        return json.loads(index.read_text()).get(OSEDIFF_KEY)
