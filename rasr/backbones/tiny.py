"""A small Stable-Diffusion-shaped backbone made from a seed: no network, no downloads.

The same classes, block layout (4 UNet levels, 12 skip features) and file format as SD-2.1-base, with few
channels. Serves the tests, the debug preset and the demo, which trains it from nothing. Two settings differ
on purpose: the VAE shrinks by 2 instead of 8, so that it is learnt in minutes and the deep UNet levels, which
the reference branch feeds, still see detail in small crops; and the noise schedule is mild (alpha_bar at the
last step is 0.6, not 0.005): SD's schedule multiplies the UNet's error by 14.6, which a network that has not
seen billions of images cannot afford.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.resnet import Downsample2D, ResnetBlock2D, Upsample2D
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from rasr.backbones.one_step import OneStepBackbone

TEXT_TOKENS = 77


def make_tiny_backbone(
    seed: int = 0,
    *,
    vae_channels: tuple[int, ...] = (16, 32),
    latent_channels: int = 6,
    unet_channels: tuple[int, ...] = (16, 32, 64, 64),
) -> OneStepBackbone:
    """Builds a random small backbone, the same for the same seed.

    Args:
        seed: seeds the weights; the global generator is left as it was.
        vae_channels: channels per VAE level; n levels shrink the image by 2**(n-1).
        latent_channels: latent channels.
        unet_channels: channels per UNet level, multiples of 8.
    """
    text_dim = 32
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=tuple(vae_channels),
            down_block_types=("DownEncoderBlock2D",) * len(vae_channels),
            up_block_types=("UpDecoderBlock2D",) * len(vae_channels),
            latent_channels=latent_channels,
            layers_per_block=1,
            norm_num_groups=8,
            scaling_factor=0.5,
        )
        unet = UNet2DConditionModel(
            in_channels=latent_channels,
            out_channels=latent_channels,
            block_out_channels=tuple(unet_channels),
            down_block_types=("CrossAttnDownBlock2D",) * (len(unet_channels) - 1) + ("DownBlock2D",),
            up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * (len(unet_channels) - 1),
            layers_per_block=2,
            norm_num_groups=8,
            attention_head_dim=1,
            cross_attention_dim=text_dim,
            use_linear_projection=True,
        )
        start_near_identity(vae, unet)
        tokenizer = make_byte_tokenizer()
        text_encoder = make_text_encoder(tokenizer, text_dim)
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.0001, beta_end=0.0012, clip_sample=False, steps_offset=1
    )
    return OneStepBackbone(vae, unet, text_encoder, tokenizer, scheduler)


@torch.no_grad()
def start_near_identity(vae: AutoencoderKL, unet: UNet2DConditionModel) -> None:
    """Initialises for training from nothing in minutes.

    Residual branches of the VAE start near 0, resizing as a blur, shortcuts as isometries, so that the signal
    passes every level from the first step on. With PyTorch's default initialisation the VAE is 3 to 4 dB
    behind after 300 steps, and the deep levels of the UNet, which the reference branch feeds, stay idle.
    """
    blur = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16
    for net in (vae, unet):
        for module in net.modules():
            if isinstance(module, ResnetBlock2D) and module.conv_shortcut is not None:
                nn.init.orthogonal_(module.conv_shortcut.weight)
            if isinstance(module, Downsample2D | Upsample2D):
                module.conv.weight.zero_()
                module.conv.bias.zero_()
                for channel in range(module.conv.weight.shape[0]):
                    module.conv.weight[channel, channel] = blur
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.mul_(1e-2)
            module.conv2.bias.zero_()
    unet.conv_out.weight.mul_(0.1)


def make_text_encoder(tokenizer: CLIPTokenizer, dim: int) -> CLIPTextModel:
    """A random CLIP text model of two layers, with outputs of `dim` channels."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=dim,
            intermediate_size=4 * dim,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TEXT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def make_byte_tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer with its 256 byte symbols and no merges: any text works, one token per byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = [chr(b) for b in printable] + [chr(256 + i) for i in range(256 - len(printable))]
    vocab = symbols + [f"{s}</w>" for s in symbols] + ["<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(vocab)}))
        Path(folder, "merges.txt").write_text("#version: 0.2\n")
        return CLIPTokenizer.from_pretrained(folder, model_max_length=TEXT_TOKENS)
