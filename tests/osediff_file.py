"""Writes files in OSEDiff's published format for small networks, from its description and without peft.

The format: a torch-saved dictionary of two ranks, four lists of layer names and two state dictionaries whose
keys are named as peft names them: `<layer>.lora_A.<adapter>.weight`, and `conv_in.base_layer.*` for the layer
that was also trained as a whole. OSEDiff picks layers whose names contain certain words, so that the VAE's
list holds some of them twice.
"""

from pathlib import Path

import torch
from torch import Tensor, nn

UNET_WORDS = ("to_k", "to_q", "to_v", "to_out.0", "conv", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2")
VAE_WORDS = (
    "conv",
    "conv1",
    "conv2",
    "conv_in",
    "conv_out",
    "conv_shortcut",
    "to_k",
    "to_q",
    "to_v",
    "to_out.0",
)


def make_osediff(
    unet: nn.Module, vae: nn.Module, *, rank_unet: int = 4, rank_vae: int = 2, seed: int = 0
) -> dict:
    """The dictionary, with random values large enough to change every output."""
    generator = torch.Generator().manual_seed(seed)
    lists: dict[str, list[str]] = {"encoder": [], "decoder": [], "others": []}
    for layer in layer_names(unet):
        if any(word in layer for word in UNET_WORDS):
            encoder = "down_blocks" in layer or "conv_in" in layer
            lists["encoder" if encoder else "decoder" if "up_blocks" in layer else "others"].append(layer)
    vae_list = [
        layer
        for layer in layer_names(vae)
        for word in VAE_WORDS  # once per word: this is where the duplicates come from
        if ("encoder" in layer and word in layer) or layer == "quant_conv"
    ]
    assert len(vae_list) > len(set(vae_list))

    unet_tensors = {}
    for part, layers in lists.items():
        for layer in layers:
            unet_tensors |= lora_tensors(unet, layer, f"default_{part}", rank_unet, generator)
    for name, parameter in unet.conv_in.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        unet_tensors[f"conv_in.base_layer.{name}"] = parameter.detach() + 0.05 * noise
    vae_tensors = {}
    for layer in dict.fromkeys(vae_list):
        vae_tensors |= lora_tensors(vae, layer, "default_encoder", rank_vae, generator)
    return {
        "rank_unet": rank_unet,
        "rank_vae": rank_vae,
        **{f"unet_lora_{part}_modules": layers for part, layers in lists.items()},
        "vae_lora_encoder_modules": vae_list,
        "state_dict_unet": unet_tensors,
        "state_dict_vae": vae_tensors,
    }


def write_osediff(unet: nn.Module, vae: nn.Module, path: Path, **kwargs) -> Path:
    """Writes `make_osediff` as the official code does."""
    torch.save(make_osediff(unet, vae, **kwargs), path)
    return path


def layer_names(net: nn.Module) -> list[str]:
    """Layers with a weight of their own that is no norm, in order."""
    return [
        name.removesuffix(".weight")
        for name, _ in net.named_parameters()
        if name.endswith(".weight") and "norm" not in name
    ]


def lora_tensors(
    net: nn.Module, layer: str, adapter: str, rank: int, generator: torch.Generator
) -> dict[str, Tensor]:
    """A is (rank, in) or (rank, in, kh, kw); B is (out, rank) or (out, rank, 1, 1)."""
    weight = net.get_submodule(layer).weight
    down = (rank, *weight.shape[1:])
    up = (weight.shape[0], rank, *(1 for _ in weight.shape[2:]))
    return {
        f"{layer}.lora_A.{adapter}.weight": 0.1 * torch.randn(down, generator=generator),
        f"{layer}.lora_B.{adapter}.weight": 0.1 * torch.randn(up, generator=generator),
    }
