"""The checkpoint at the end of a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl


class FinalCheckpoint(pl.callbacks.Checkpoint):
    """Writes `folder/last.ckpt` after the last step, whatever the interval of the others.

    It does so inside the loop: after it, the position in the epoch is lost, and a run continued with more
    steps would not equal a straight one.

    Args:
        folder: where the run's checkpoints lie.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Saves once `trainer.max_steps` is reached."""
        if trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(self.folder / "last.ckpt")
