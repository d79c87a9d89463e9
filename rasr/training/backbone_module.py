"""Trains a small backbone from nothing: VAE and UNet of a one-step restorer, without references.

SD-2.1 and OSEDiff bring a trained backbone; this is for the demo and for whoever wants a small one.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rasr.training.module import RASRModule


class BackboneModule(RASRModule):
    """Two jobs a step, as in Stable Diffusion: the VAE reproduces clean images, the UNet restores latents.

    The restoration's gradient stops before the VAE encoder. Trained in one piece instead, encoder and decoder
    learn to restore by themselves and the UNet, the part that a reference can reach, stays idle.
    """

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Restoration loss plus the same loss on the VAE's reproduction of `gt`."""
        batch = self.degrade(batch)
        gt, backbone = batch["gt"], self.net.backbone
        gt_latents, latents = backbone.encode(torch.cat([gt, batch["lq_up"]])).chunk(2)
        latents = latents.detach()
        prompt_embeds = backbone.encode_prompt(batch["prompt"])
        noise_pred = backbone.decode_unet(backbone.encode_unet(latents, prompt_embeds), prompt_embeds)
        latents_pred = backbone.predict_x0(latents, noise_pred)
        reproduced, sr = backbone.decode(torch.cat([gt_latents, latents_pred])).chunk(2)
        terms = self.loss(sr, gt)
        autoencoding = self.loss.total(self.loss(reproduced, gt))
        self.log("train/loss_autoencoding", autoencoding.detach())
        return self.check_finite(self.log_losses(terms) + autoencoding, batch)
