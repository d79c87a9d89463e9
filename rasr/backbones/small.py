"""The architecture of `rasr-small`: Stable Diffusion's classes at a size for a laptop's CPU.

Differs from SD-2.1 in numbers only:

- the VAE shrinks by 4, not 8, to 16 latent channels: a small UNet cannot invent what a factor of 8 loses;
- no attention on the finest UNet level: 16,384 tokens at 512x512 would take longer than all the rest;
- a mild noise schedule (alpha_bar at the last step is 0.9, not 0.005): the one step multiplies the error of
  the UNet by sqrt((1 - alpha_bar) / alpha_bar), 14.6 on SD's schedule and 0.33 here.
"""

from __future__ import annotations

import math

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from diffusers.models.resnet import ResnetBlock2D
from torch import nn

from rasr.backbones.one_step import OneStepBackbone
from rasr.backbones.tiny import make_byte_tokenizer, make_text_encoder, start_near_identity

VAE_CHANNELS = (32, 48, 64)
LATENT_CHANNELS = 16
UNET_CHANNELS = (64, 96, 112, 112)
TEXT_DIM = 64


def make_small_backbone(seed: int = 0) -> OneStepBackbone:
    """Builds an untrained `rasr-small` backbone (9.9 M parameters), the same for the same seed.

    It starts as an enlargement: its output is a slightly blurred `lq_up` (`start_as_enlargement`).
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=VAE_CHANNELS,
            down_block_types=("DownEncoderBlock2D",) * len(VAE_CHANNELS),
            up_block_types=("UpDecoderBlock2D",) * len(VAE_CHANNELS),
            latent_channels=LATENT_CHANNELS,
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=False,
            scaling_factor=1.0,
        )
        unet = UNet2DConditionModel(
            in_channels=LATENT_CHANNELS,
            out_channels=LATENT_CHANNELS,
            block_out_channels=UNET_CHANNELS,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=2,
            norm_num_groups=8,
            attention_head_dim=2,
            cross_attention_dim=TEXT_DIM,
            use_linear_projection=True,
        )
        start_near_identity(vae, unet)
        start_as_enlargement(vae, unet)
        tokenizer = make_byte_tokenizer()
        text_encoder = make_text_encoder(tokenizer, TEXT_DIM)
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=1e-5, beta_end=2.5e-4, clip_sample=False, steps_offset=1
    )
    return OneStepBackbone(vae, unet, text_encoder, tokenizer, scheduler)


@torch.no_grad()
def start_as_enlargement(vae: AutoencoderKL, unet: UNet2DConditionModel) -> None:
    """Lets R, G and B pass the untrained VAE in three channels of their own, and silences the UNet.

    Training then starts at the PSNR of a blurred enlargement. From a random start the network was still
    0.6 dB below bicubic enlargement after 150 s of training on two cores, from this one level with it after
    90 s: the group norm before each output divides the mean colours away, and they take long to learn. So the
    group that carries R, G and B gets two constant channels, +-`anchor`, which make its statistics nearly
    independent of the image, and SiLU is used where it is nearly a straight line, around `shift`. Everything
    stays trainable.
    """
    anchor, shift = 3.0, 3.0
    sigmoid = 1 / (1 + math.exp(-shift))
    slope, offset = sigmoid * (1 + shift * (1 - sigmoid)), shift * sigmoid  # of SiLU at `shift`
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            for tensor in (module.conv2.weight, module.conv2.bias):
                tensor[:5] = 0
            if module.conv_shortcut is not None:
                _pass_rgb(module.conv_shortcut)
    for part, last in ((vae.encoder, vae.encoder.down_blocks[-1]), (vae.decoder, vae.decoder.up_blocks[-1])):
        _pass_rgb(part.conv_in)
        shortcut, norm, out = last.resnets[0].conv_shortcut, part.conv_norm_out, part.conv_out
        shortcut.weight[3:5] = 0
        shortcut.bias[3], shortcut.bias[4] = anchor, -anchor
        norm.weight[:3] = anchor * math.sqrt(2 * norm.num_groups / norm.num_channels)  # the group's deviation
        norm.bias[:3] = shift
        out.weight.mul_(0.1)
        _pass_rgb(out)
        out.weight[:3] /= slope
        out.bias[:3] = -offset / slope
    for conv in (vae.quant_conv, vae.post_quant_conv):
        nn.init.dirac_(conv.weight)
        nn.init.zeros_(conv.bias)
    nn.init.zeros_(unet.conv_out.weight)
    nn.init.zeros_(unet.conv_out.bias)


def _pass_rgb(conv: nn.Conv2d) -> None:
    """Makes the first three output channels copies of the first three input channels."""
    conv.weight[:3] = 0
    conv.bias[:3] = 0
    middle = conv.kernel_size[0] // 2
    for channel in range(3):
        conv.weight[channel, channel, middle, middle] = 1
