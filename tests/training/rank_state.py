"""What each process of a distributed run ends with, for the tests that compare ranks."""

from pathlib import Path

import pytorch_lightning as pl
import torch


class SaveRank(pl.Callback):
    """Writes every tensor that training may change, and the optimiser's, to `folder/rank<n>.pt`."""

    def __init__(self, folder: str) -> None:
        self.folder = Path(folder)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        state = pl_module.state_dict()
        kept = {name: state[name] for name in pl_module.checkpoint_keys()}
        optimizer = trainer.optimizers[0].state_dict()
        torch.save({"tensors": kept, "optimizer": optimizer}, self.folder / f"rank{trainer.global_rank}.pt")
