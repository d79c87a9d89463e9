"""The Lightning module: degrade, restore, compare. Architecture, loss terms and file writing live elsewhere.

Generator and discriminator learn from the same batch in one backward pass and one optimiser step, under
automatic optimisation: plain DDP works, and Trainer's accumulation, clipping and `global_step` mean what they
say. The updates are simultaneous, not alternating.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rasr.backbones.lora import check_keys, trainable_parameters
from rasr.errors import RasrError
from rasr.image_ops import resize_bicubic
from rasr.losses import RestorationLoss
from rasr.losses.adversarial import discriminator_loss, generator_loss
from rasr.models import RASRNet
from rasr.models.weight_files import METADATA_KEY, with_fusion_prefix
from rasr.seeding import sample_seed
from rasr.training.optim import make_schedule


class RASRModule(pl.LightningModule):
    """Trains whatever of `net` is trainable: a reference fusion, or a backbone that has none.

    Batches from the data module hold `gt` and `ref` (B, 3, S, S) in [0, 1] (`ref` may be absent), `prompt`
    (B texts), `sample_id` (B texts) and `seed` (B,) int64, which alone decides the degradation.

    Args:
        net: network to train.
        loss: restoration loss.
        degradation: `degradation(gt, seeds=seed) -> lq` at 1 / scale of the size.
        optimizer: function from parameter groups to the optimiser.
        discriminator: for the GAN term, if the loss has one: images (B, 3, S, S) in [0, 1] -> list of logits.
        seed: the run's seed; with rank, epoch and batch it decides every random draw of a step.
        conditioning_scale: w of Eq. 6 in training (paper: 1).
        val_conditioning_scale: w in validation (the paper's inference value: 0.5).
        warmup_steps: linear learning-rate warm-up, in optimiser steps.
        decay: "constant" or "cosine" learning rate after the warm-up.
        grad_norm_every: every so many optimiser steps the weighted gradient norm of each term with respect to
            `sr` is logged; 0 never.
    """

    def __init__(
        self,
        net: RASRNet,
        loss: RestorationLoss,
        degradation: nn.Module,
        optimizer: Callable[[Iterable[dict[str, Any]]], Optimizer],
        *,
        discriminator: nn.Module | None = None,
        seed: int = 0,
        conditioning_scale: float = 1.0,
        val_conditioning_scale: float = 0.5,
        warmup_steps: int = 0,
        decay: str = "constant",
        grad_norm_every: int = 0,
    ) -> None:
        super().__init__()
        if ("gan" in loss.weights) != (discriminator is not None):
            raise RasrError(
                f"loss.weights.gan={loss.weights.get('gan', 0)} and a discriminator go together; "
                "give both (discriminator=dino_vitb16) or neither (discriminator=none loss.weights.gan=0)"
            )
        self.net = net
        self.loss = loss
        self.degradation = degradation
        self.make_optimizer = optimizer
        self.conditioning_scale = conditioning_scale
        self.val_conditioning_scale = val_conditioning_scale
        self.warmup_steps = warmup_steps
        self.decay = decay
        self.discriminator = discriminator
        self.seed = seed
        self.grad_norm_every = grad_norm_every
        self.run_config: dict[str, Any] = {}  # resolved configuration of the run, kept in its checkpoints
        self.strict_loading = False  # checkpoints hold trainable tensors only; on_load_checkpoint checks them

    @torch.no_grad()
    def degrade(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Adds the LQ image, made on the batch's device: `lq_up` (B, 3, S, S)."""
        gt = batch["gt"]
        lq = self.degradation(gt, seeds=batch["seed"])
        return batch | {"lq_up": resize_bicubic(lq, tuple(gt.shape[-2:]))}

    def forward(self, batch: dict[str, Any], conditioning_scale: float) -> Tensor:
        """Restores a batch; with its reference if the net has a fusion. Returns (B, 3, S, S) in [0, 1]."""
        ref = None if self.net.fusion is None else batch["ref"]
        return self.net(batch["lq_up"], ref, prompt=batch["prompt"], conditioning_scale=conditioning_scale)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        """Makes every draw of the step (DiffAugment, posterior sampling) the same after a resume."""
        torch.manual_seed(sample_seed(self.seed, self.global_rank, self.current_epoch, batch_idx))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """One forward of the generator; every raw term and the weighted total are logged."""
        # 1. restore
        batch = self.degrade(batch)
        gt = batch["gt"]
        sr = self(batch, self.conditioning_scale)

        # 2. the generator's terms; the discriminator only judges here
        terms = self.loss(sr, gt)
        if self.discriminator is not None:
            self.discriminator.requires_grad_(False)
            terms["gan"] = generator_loss(self.discriminator(sr))
            self.discriminator.requires_grad_(True)
        if self.grad_norm_every and self.trainer.global_step % self.grad_norm_every == 0:
            self.log_gradients(sr, terms)
        total = self.log_losses(terms)

        # 3. the discriminator's loss, on the same images, without a way back to the generator
        if self.discriminator is not None:
            logits_real, logits_fake = self.discriminator(gt), self.discriminator(sr.detach())
            loss_d = discriminator_loss(logits_real, logits_fake)
            self.log("train/loss_d", loss_d.detach())
            self.log("train/logits_real", torch.stack([x.detach().mean() for x in logits_real]).mean())
            self.log("train/logits_fake", torch.stack([x.detach().mean() for x in logits_fake]).mean())
            total = total + loss_d
        return self.check_finite(total, batch)

    def log_gradients(self, sr: Tensor, terms: dict[str, Tensor]) -> None:
        """Logs how hard each weighted term pulls at the restored images."""
        for name, term in terms.items():
            (gradient,) = torch.autograd.grad(self.loss.weights[name] * term, sr, retain_graph=True)
            self.log(f"train/grad_norm_{name}", gradient.norm())

    def log_losses(self, terms: dict[str, Tensor]) -> Tensor:
        """Logs raw terms and the weighted total, and returns the total."""
        total = self.loss.total(terms)
        for name, term in terms.items():
            self.log(f"train/loss_{name}", term.detach())
        self.log("train/loss_total", total.detach(), prog_bar=True)
        return total

    def check_finite(self, total: Tensor, batch: dict[str, Any]) -> Tensor:
        """Stops the run before a step is taken that would ruin the weights; else returns what it is given."""
        if not torch.isfinite(total):
            raise RasrError(
                f"the loss is {total.item()} at step {self.global_step} on {', '.join(batch['sample_id'])}; "
                "look at these images, or lower optim.optimizer.lr and run the same command again"
            )
        return total

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Logs RGB PSNR (dB) of the restored validation images and of plain bicubic enlargement.

        Returns:
            `sr` and `lq_up`, both (B, 3, S, S), for whoever draws them.
        """
        batch = self.degrade(batch)
        size = len(batch["gt"])
        sr = self(batch, self.val_conditioning_scale)
        for name, images in (("psnr", sr), ("psnr_bicubic", batch["lq_up"])):
            mse = (images.float() - batch["gt"]).square().mean(dim=(1, 2, 3))
            self.log(
                f"val/{name}", (-10 * mse.log10()).mean(), batch_size=size, sync_dist=True, prog_bar=True
            )
        return {"sr": sr, "lq_up": batch["lq_up"]}

    def configure_optimizers(self) -> dict[str, Any]:
        """One optimiser, a parameter group per network, schedule stepped per optimiser step."""
        nets = [net for net in (self.net, self.discriminator) if net is not None]
        optimizer = self.make_optimizer(
            [{"params": list(trainable_parameters(net).values())} for net in nets]
        )
        schedule = make_schedule(
            optimizer,
            warmup_steps=self.warmup_steps,
            decay=self.decay,
            total_steps=int(self.trainer.estimated_stepping_batches),
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips each group by its own norm: a large gradient of one network does not shrink the other's."""
        if gradient_clip_val:
            for group in optimizer.param_groups:
                torch.nn.utils.clip_grad_norm_(group["params"], gradient_clip_val)

    def checkpoint_keys(self) -> set[str]:
        """What checkpoints hold: trainable tensors, and the buffers of the heads that train."""
        heads = {name for name in self.state_dict() if name.startswith("discriminator.heads.")}
        return heads | set(trainable_parameters(self))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen tensors out; adds what rebuilds the net."""
        kept = self.checkpoint_keys()
        checkpoint["state_dict"] = {k: v for k, v in checkpoint["state_dict"].items() if k in kept}
        config = getattr(self.net, "config", None)
        checkpoint[METADATA_KEY] = asdict(config) if config else {}
        checkpoint["run_config"] = self.run_config

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint whose tensors are not exactly the trainable ones."""
        checkpoint["state_dict"] = with_fusion_prefix(checkpoint["state_dict"], "net.")
        check_keys(checkpoint["state_dict"], self.checkpoint_keys(), source="checkpoint to resume from")
