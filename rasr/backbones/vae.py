"""Images to latents and back, by the VAE of any Stable Diffusion."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor


class SizeContract:
    """Of a model with a VAE and a UNet: which sizes of images it takes."""

    vae: AutoencoderKL
    unet: UNet2DConditionModel

    @property
    def vae_factor(self) -> int:
        """Side of the image block that one latent stands for (8 on SD)."""
        return vae_factor(self.vae)

    @property
    def size_multiple(self) -> int:
        """H and W of every image must be multiples of this (64 on SD-2.1: VAE 8 x UNet 8)."""
        return size_multiple(self.vae, self.unet)


def vae_factor(vae: AutoencoderKL) -> int:
    """Side in pixels of the image block that one latent stands for (8 on SD)."""
    return 2 ** (len(vae.config.block_out_channels) - 1)


def size_multiple(vae: AutoencoderKL, unet: UNet2DConditionModel) -> int:
    """H and W of images for the two must be multiples of this (64 on SD-2.1: VAE 8 x UNet 8)."""
    return vae_factor(vae) * 2 ** (len(unet.config.block_out_channels) - 1)


def encode_latents(vae: AutoencoderKL, images: Tensor, *, sample: bool = False) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> VAE latents times the scaling factor; posterior mode unless `sample`."""
    images = (images * 2 - 1).to(vae.encoder.conv_in.weight.dtype)
    posterior = vae.encode(faster_order(images)).latent_dist
    latents = posterior.sample() if sample else posterior.mode()
    return latents.contiguous() * vae.config.scaling_factor


def decode_latents(vae: AutoencoderKL, latents: Tensor) -> Tensor:
    """Latents times the scaling factor -> (B, 3, H, W) images in [0, 1], float32."""
    latents = (latents / vae.config.scaling_factor).to(vae.decoder.conv_in.weight.dtype)
    images = vae.decode(faster_order(latents)).sample.contiguous()
    return images.float().clamp(-1, 1) / 2 + 0.5


def faster_order(x: Tensor) -> Tensor:
    """The same values in the memory order in which a convolutional VAE is fastest on the device of `x`.

    Channels last makes `rasr-small`'s VAE a third faster on a CPU. On CUDA torch's group norm wants the usual
    order and would copy every time.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
