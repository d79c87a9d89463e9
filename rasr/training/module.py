"""The Lightning module: degrade, restore, compare. Architecture, loss terms and file writing live elsewhere.

One optimiser step per batch under automatic optimisation, so Trainer's accumulation, clipping and
`global_step` mean what they say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rasr.image_ops import resize_bicubic
from rasr.losses import RestorationLoss
from rasr.models import RASRNet
from rasr.models.lora import check_keys, trainable_parameters
from rasr.models.weights import METADATA_KEY
from rasr.training.optim import make_schedule


class RASRModule(pl.LightningModule):
    """Trains whatever of `net` is trainable: the reference branch, or a backbone that has none.

    Batches from the data module hold `gt` and `ref` (B, 3, S, S) in [0, 1] (`ref` may be absent), `prompt`
    (B texts), `sample_id` (B texts) and `seed` (B,) int64, which alone decides the degradation.

    Args:
        net: network to train.
        loss: restoration loss.
        degradation: `degradation(gt, seeds=seed) -> lq` at 1 / scale of the size.
        optimizer: function from parameters to the optimiser.
        conditioning_scale: w of Eq. 6 in training (paper: 1).
        val_conditioning_scale: w in validation (the paper's inference value: 0.5).
        warmup_steps: linear learning-rate warm-up, in optimiser steps.
        decay: "constant" or "cosine" learning rate after the warm-up.
    """

    def __init__(
        self,
        net: RASRNet,
        loss: RestorationLoss,
        degradation: nn.Module,
        optimizer: Callable[[Iterable[nn.Parameter]], Optimizer],
        *,
        conditioning_scale: float = 1.0,
        val_conditioning_scale: float = 0.5,
        warmup_steps: int = 0,
        decay: str = "constant",
    ) -> None:
        super().__init__()
        self.net = net
        self.loss = loss
        self.degradation = degradation
        self.make_optimizer = optimizer
        self.conditioning_scale = conditioning_scale
        self.val_conditioning_scale = val_conditioning_scale
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.run_config: dict[str, Any] = {}  # resolved configuration of the run, kept in its checkpoints
        self.strict_loading = False  # checkpoints hold trainable tensors only; on_load_checkpoint checks them

    @torch.no_grad()
    def degrade(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Adds the LQ image, made on the batch's device: `lq_up` (B, 3, S, S)."""
        gt = batch["gt"]
        lq = self.degradation(gt, seeds=batch["seed"])
        return batch | {"lq_up": resize_bicubic(lq, tuple(gt.shape[-2:]))}

    def forward(self, batch: dict[str, Any], conditioning_scale: float) -> Tensor:
        """Restores a batch; with its reference if the net has a branch. Returns (B, 3, S, S) in [0, 1]."""
        ref = None if self.net.branch is None else batch["ref"]
        return self.net(batch["lq_up"], ref, prompt=batch["prompt"], conditioning_scale=conditioning_scale)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One forward of the generator; every raw term and the weighted total are logged."""
        batch = self.degrade(batch)
        sr = self(batch, self.conditioning_scale)
        terms = self.loss(sr, batch["gt"])
        return self.log_losses(batch, terms, self.loss.total(terms))

    def log_losses(self, batch: dict[str, Any], terms: dict[str, Tensor], total: Tensor) -> Tensor:
        """Logs raw terms and the weighted total and returns the total; stops the run if it is not finite."""
        if not torch.isfinite(total):
            raise FloatingPointError(
                f"loss is {total.item()} on the batch of {', '.join(batch['sample_id'])}"
            )
        for name, term in terms.items():
            self.log(f"train/loss_{name}", term.detach())
        self.log("train/loss_total", total.detach(), prog_bar=True)
        return total

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Logs RGB PSNR (dB) of the restored validation images and of plain bicubic enlargement."""
        batch = self.degrade(batch)
        size = len(batch["gt"])
        sr = self(batch, self.val_conditioning_scale)
        for name, images in (("psnr", sr), ("psnr_bicubic", batch["lq_up"])):
            mse = (images.float() - batch["gt"]).square().mean(dim=(1, 2, 3))
            self.log(
                f"val/{name}", (-10 * mse.log10()).mean(), batch_size=size, sync_dist=True, prog_bar=True
            )

    def configure_optimizers(self) -> dict[str, Any]:
        """Optimiser over the trainable parameters, schedule stepped per optimiser step."""
        optimizer = self.make_optimizer(trainable_parameters(self.net).values())
        schedule = make_schedule(
            optimizer,
            warmup_steps=self.warmup_steps,
            decay=self.decay,
            total_steps=int(self.trainer.estimated_stepping_batches),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen tensors out; adds what rebuilds the net."""
        trainable = trainable_parameters(self)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in trainable}
        config = getattr(self.net, "config", None)
        checkpoint[METADATA_KEY] = asdict(config) if config else {}
        checkpoint["run_config"] = self.run_config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint whose tensors are not exactly the trainable ones."""
        check_keys(checkpoint["state_dict"], trainable_parameters(self), source="checkpoint to resume from")
