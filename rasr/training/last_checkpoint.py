"""`last.ckpt`: where a run goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class LastCheckpoint(pl.callbacks.Checkpoint):
    """Writes `folder/last.ckpt` every so many steps and after the last one.

    Lightning's own `save_last` writes the last one after the loop, where the position in the epoch is lost: a
    run continued with more steps would not equal a straight one.

    Args:
        folder: where the run's checkpoints lie.
        every_n_train_steps: optimiser steps between two of them.
    """

    def __init__(self, folder: str | Path, every_n_train_steps: int) -> None:
        self.folder = Path(folder)
        self.every_n_train_steps = every_n_train_steps
        self.saved_step = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """A run that goes on has that step's checkpoint already."""
        self.saved_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves when the step is due; only once, however many batches are accumulated into a step."""
        step = trainer.global_step
        is_due = step == trainer.max_steps or step % self.every_n_train_steps == 0
        if is_due and step != self.saved_step:
            trainer.save_checkpoint(self.folder / "last.ckpt")
            self.saved_step = step
