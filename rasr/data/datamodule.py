"""Training and validation loaders for Lightning, sharded over the ranks and resumable."""

from pathlib import Path

import pytorch_lightning as pl
import torch

from rasr.data.dataset import ReferenceDataset
from rasr.data.sampler import ResumableDataLoader, ResumableDistributedSampler


class RASRDataModule(pl.LightningDataModule):
    """Batches of clean crops, references, prompts and degradation seeds (:class:`rasr.data.dataset.Sample`).

    The training module degrades: `degradation(batch["gt"], seeds=batch["seed"])`. Validation samples are
    the same in every epoch: the centre of the image and of its first draw of a reference, a fixed seed.
    """

    def __init__(
        self,
        train: str | Path,
        *,
        val: str | Path | None,
        train_split: str,
        val_split: str,
        gt_size: int,
        seed: int,
        batch_size: int,
        num_workers: int,
        random_crop: bool,
        hflip: bool,
    ) -> None:
        """Keep the settings; files are looked at in `setup`.

        Args:
            train: CSV manifest or folder of the training images.
            val: likewise for validation; None goes without.
            train_split: rows of `train` to use, if it is a manifest.
            val_split: rows of `val` to use, if it is a manifest.
            gt_size: side of the crops, in pixels.
            seed: the run's seed.
            batch_size: samples per rank and step.
            num_workers: loader processes per rank.
            random_crop: see :class:`ReferenceDataset`; training only.
            hflip: likewise.
        """
        super().__init__()
        self.train, self.train_split = train, train_split
        self.val, self.val_split = val, val_split
        self.gt_size, self.seed = gt_size, seed
        self.batch_size, self.num_workers = batch_size, num_workers
        self.random_crop, self.hflip = random_crop, hflip
        self.train_set: ReferenceDataset | None = None
        self.val_set: ReferenceDataset | None = None

    def setup(self, stage: str | None = None) -> None:
        """List and check the images; a second call does nothing."""
        common = {"gt_size": self.gt_size, "seed": self.seed}
        if self.train_set is None and stage in (None, "fit"):
            self.train_set = ReferenceDataset(
                self.train, split=self.train_split, random_crop=self.random_crop, hflip=self.hflip, **common
            )
        if self.val_set is None and self.val is not None and stage in (None, "fit", "validate"):
            self.val_set = ReferenceDataset(
                self.val, split=self.val_split, random_crop=False, hflip=False, is_fixed=True, **common
            )

    def train_dataloader(self) -> ResumableDataLoader:
        return self._loader(self.train_set, shuffle=True)

    def val_dataloader(self) -> ResumableDataLoader | list:
        return [] if self.val_set is None else self._loader(self.val_set, shuffle=False)

    def _loader(self, dataset: ReferenceDataset, *, shuffle: bool) -> ResumableDataLoader:
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = ResumableDistributedSampler(
            len(dataset), world_size=world_size, rank=rank, shuffle=shuffle, seed=self.seed
        )
        return ResumableDataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
