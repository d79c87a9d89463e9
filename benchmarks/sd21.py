"""SD-2.1-base in its full shapes with random weights: time, memory and parameter counts need no download."""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from rasr.backbones.tiny import make_byte_tokenizer
from rasr.models import OneStepBackbone, RASRNet

UNET = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 768,
}
TEXT = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 23,
    "num_attention_heads": 16,
    "hidden_act": "gelu",
    "projection_dim": 512,
}


def make_sd21_backbone(
    device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> OneStepBackbone:
    """Random weights in the shapes of SD-2.1-base (UNet 866 M, VAE 84 M, text encoder 340 M parameters)."""
    tokenizer = make_byte_tokenizer()
    ids = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            torch.manual_seed(0)
            unet = UNet2DConditionModel(**UNET)
            vae = AutoencoderKL(**VAE)
            text_encoder = CLIPTextModel(CLIPTextConfig(**TEXT, **ids, pad_token_id=tokenizer.pad_token_id))
    finally:
        torch.set_default_dtype(default)
    scheduler = DDPMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, clip_sample=False
    )
    return OneStepBackbone(vae, unet, text_encoder, tokenizer, scheduler)


def compile_blocks(net: RASRNet) -> None:
    """Compiles the large parts one by one: short compile times, and no graph breaks between them."""
    unet, vae = net.backbone.unet, net.backbone.vae
    parts = [vae.encoder, vae.decoder, *unet.down_blocks, unet.mid_block, *unet.up_blocks]
    if net.fusion is not None:
        parts += [net.fusion.vae.encoder, *net.fusion.net.down_blocks, net.fusion.net.mid_block]
    for part in dict.fromkeys(parts):
        part.compile()
