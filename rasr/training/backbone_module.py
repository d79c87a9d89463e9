"""Trains a small backbone from nothing: VAE and UNet of a one-step restorer, without references.

SD-2.1 and OSEDiff bring a trained backbone; this is for the demo and for whoever wants a small one. Either
both parts at once (`BackboneModule`, minutes), or the VAE first (`AutoencoderModule`), then the UNet over the
frozen VAE (`LatentModule`), and at last both together (`RASRModule`): how `rasr-small` was trained.
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
        latents_pred = backbone.restore_latents(latents, batch["prompt"])
        reproduced, sr = backbone.decode(torch.cat([gt_latents, latents_pred])).chunk(2)
        terms = self.loss(sr, gt)
        autoencoding = self.loss.total(self.loss(reproduced, gt))
        self.log("train/loss_autoencoding", autoencoding.detach())
        return self.check_finite(self.log_losses(terms) + autoencoding, batch)


class AutoencoderModule(RASRModule):
    """The VAE alone learns to reproduce images, clean ones and degraded ones; the UNet has no part in it."""

    def forward(self, batch: dict[str, Any], conditioning_scale: float) -> Tensor:
        """Reproduces `gt`, so that the PSNR of a validation is the autoencoder's."""
        backbone = self.net.backbone
        return backbone.decode(backbone.encode(batch["gt"]))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of the reproduction; no noise, no prior: the latents are read by one network only."""
        batch = self.degrade(batch)
        images, backbone = torch.cat([batch["gt"], batch["lq_up"]]), self.net.backbone
        terms = self.loss(backbone.decode(backbone.encode(images)), images)
        return self.check_finite(self.log_losses(terms), batch)


class LatentModule(RASRModule):
    """The UNet alone learns to turn latents of degraded images into those of the clean ones.

    The VAE is frozen and its decoder not run: two thirds of the time of a step through the image.
    """

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Loss of the latents; it must take any number of channels (`loss=mse_only`, `loss=psnr_only`)."""
        batch = self.degrade(batch)
        gt, backbone = batch["gt"], self.net.backbone
        with torch.no_grad():
            images = torch.cat([gt, batch["lq_up"]])
            latents_gt, latents = backbone.encode(images).float().chunk(2)
        latents_pred = backbone.restore_latents(latents, batch["prompt"])
        terms = self.loss(latents_pred, latents_gt)
        return self.check_finite(self.log_losses(terms), batch)
