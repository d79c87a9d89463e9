"""Exponential moving average of the trainable tensors.

Lightning's own callback copies the whole module, gigabytes of frozen weights included, and cannot resume from
checkpoints that hold trainable tensors only.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from rasr.backbones.lora import trainable_parameters
from rasr.errors import RasrError
from rasr.models import RASRNet
from rasr.models.weight_files import EMA_KEY, with_fusion_prefix


class EMA(pl.Callback):
    """Averages the trainable tensors: `average = decay * average + (1 - decay) * weight` per optimiser step.

    Validation and the exported weights use the average; the checkpoint keeps both it and the weights.

    Args:
        decay: in [0, 1); 0 makes the average the weights themselves.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise RasrError(f"callbacks.ema.decay={decay} must lie in [0, 1)")
        self.decay = decay
        self.average: dict[str, Tensor] = {}
        self._last_step = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Starts from the weights, unless a checkpoint brought an average."""
        parameters = trainable_parameters(pl_module.net)
        if not self.average:
            self.average = {name: p.detach().clone() for name, p in parameters.items()}
        self.average = {name: tensor.to(parameters[name].device) for name, tensor in self.average.items()}
        self._last_step = trainer.global_step

    @torch.no_grad()
    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Moves the average after every optimiser step; batches that only accumulate do not count."""
        if trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        parameters = trainable_parameters(pl_module.net)
        weights = [parameters[name] for name in self.average]
        torch._foreach_lerp_(list(self.average.values()), weights, 1 - self.decay)

    @contextmanager
    def swapped(self, net: RASRNet) -> Iterator[None]:
        """Puts the average into `net` for the duration of the block; does nothing before training."""
        parameters = trainable_parameters(net)
        kept = {name: parameters[name].data for name in self.average}
        for name, tensor in self.average.items():
            parameters[name].data = tensor.to(parameters[name].device)
        try:
            yield
        finally:
            for name, tensor in kept.items():
                parameters[name].data = tensor

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates the average."""
        self._swap = self.swapped(pl_module.net)
        self._swap.__enter__()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Gives the weights back."""
        self._swap.__exit__(None, None, None)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Keeps the average beside the weights; `rasr.models.load_rasr_net` prefers it."""
        checkpoint[EMA_KEY] = self.average

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Takes the average of a checkpoint."""
        self.average = with_fusion_prefix(checkpoint[EMA_KEY])
