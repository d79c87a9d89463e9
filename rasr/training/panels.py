"""Pictures of the validation set while training goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl

from rasr.drawing import PanelCell, draw_panel


class ValidationPanels(pl.Callback):
    """Writes `folder/step_NNNNNNN.png` at every validation: enlarged LR, restored, reference, ground truth.

    A module whose `validation_step` returns `panel`, pictures by label, decides the columns itself.

    Args:
        folder: where the pictures go; a wandb logger gets them too.
        rows: how many images of the first validation batch are shown; 0 writes nothing.
    """

    def __init__(self, folder: str | Path, rows: int = 4) -> None:
        self.folder = Path(folder)
        self.rows = rows

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: dict[str, Any],
        batch: dict[str, Any],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Draws the first batch of rank 0."""
        if batch_idx or dataloader_idx or not self.rows or not trainer.is_global_zero:
            return
        cells = outputs.get("panel")
        if cells is None:
            cells = {"LR": outputs["lq_up"], "restored": outputs["sr"], "reference": batch.get("ref")}
            cells["ground truth"] = batch["gt"]
        names = batch["sample_id"]
        rows = [
            [
                PanelCell(label, images[i].float().cpu(), names[i] if label == "LR" else "")
                for label, images in cells.items()
                if images is not None
            ]
            for i in range(min(self.rows, len(names)))
        ]
        path = self.folder / f"step_{trainer.global_step:07d}.png"
        draw_panel(rows, path)
        for logger in trainer.loggers:
            if isinstance(logger, pl.loggers.WandbLogger):
                logger.log_image("val/panel", [str(path)], step=trainer.global_step)
