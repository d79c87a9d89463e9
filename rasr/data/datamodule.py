"""Training and validation loaders for Lightning, sharded over the ranks and resumable."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from rasr.checks import check_whole
from rasr.data.dataset import CropDataset, ReferenceDataset
from rasr.data.mixing import MixedDataset, MixedOrder, Source, as_sources
from rasr.data.sampler import ResumableDataLoader, ResumableDistributedSampler
from rasr.data.shards import ShardDataset, is_shards
from rasr.data.skips import SkipLog
from rasr.data.two_view import TwoViewDataset
from rasr.errors import RasrError

Sources = str | Path | Sequence[Mapping[str, Any]]


class RASRDataModule(pl.LightningDataModule):
    """Batches of clean crops, references, prompts and degradation seeds (:class:`rasr.data.dataset.Sample`).

    The training module degrades: `degradation(batch["gt"], seeds=batch["seed"])`. Validation samples are
    the same in every epoch: the centre of the image and of its first draw of a reference, a fixed seed.
    """

    def __init__(
        self,
        train: Sources,
        *,
        val: Sources | None,
        train_split: str,
        val_split: str,
        neighbours: str | Path | None,
        two_crops: bool,
        max_overlap: float,
        gt_size: int,
        seed: int,
        batch_size: int,
        num_workers: int,
        random_crop: bool,
        hflip: bool,
        skipped: str | Path | None,
    ) -> None:
        """Keep the settings; files are looked at in `setup`.

        Args:
            train: manifest, folder or shards of the training images; or a list of such sets, mappings with
                `path`, `weight` and, where they differ from the keys below, `split`, `neighbours` and
                `two_crops` (:class:`rasr.data.mixing.Source`).
            val: likewise for validation, where weights play no part; None goes without.
            train_split: rows of `train` to use, if it is a manifest.
            val_split: likewise of `val`.
            neighbours: Parquet file of references (:mod:`rasr.data.neighbours`), in place of those of the
                manifests.
            two_crops: in training and validation, the reference is another crop of the image itself.
            max_overlap: of those two crops, see :class:`rasr.data.dataset.CropDataset`.
            gt_size: side of the crops, in pixels.
            seed: the run's seed.
            batch_size: samples per rank and step.
            num_workers: loader processes per rank.
            random_crop: see :class:`rasr.data.dataset.CropDataset`; training only.
            hflip: likewise.
            skipped: CSV file that records samples which could not be read; None keeps no file.
        """
        super().__init__()
        check_whole("data.batch_size", batch_size, least=1)
        check_whole("data.num_workers", num_workers, least=0)
        self.train, self.val = train, val
        self.train_split, self.val_split = train_split, val_split
        self.neighbours, self.two_crops, self.max_overlap = neighbours, two_crops, max_overlap
        self.gt_size, self.seed = gt_size, seed
        self.batch_size, self.num_workers = batch_size, num_workers
        self.random_crop, self.hflip = random_crop, hflip
        self.skipped = skipped
        self.train_set: CropDataset | MixedDataset | None = None
        self.val_set: CropDataset | MixedDataset | None = None
        self._train_order: MixedOrder | None = None
        self._skip_log: SkipLog | None = None

    def setup(self, stage: str | None = None) -> None:
        """List and check the images; a second call does nothing."""
        if self.train is None:
            raise RasrError("data.train is null; give training images")
        if self.train_set is None and stage in (None, "fit"):
            sources = self._sources(self.train, self.train_split)
            sets = [self._open(source, random_crop=self.random_crop, hflip=self.hflip) for source in sources]
            self.train_set = sets[0] if len(sets) == 1 else MixedDataset(sets)
            self._train_order = MixedOrder(
                [len(part) for part in sets], [source.weight for source in sources]
            )
        if self.val_set is None and self.val is not None and stage in (None, "fit", "validate"):
            sources = self._sources(self.val, self.val_split)
            sets = [self._open(source, random_crop=False, hflip=False, is_fixed=True) for source in sources]
            self.val_set = sets[0] if len(sets) == 1 else MixedDataset(sets)

    def train_dataloader(self) -> ResumableDataLoader:
        return self._loader(self.train_set, self._train_order, shuffle=True)

    def val_dataloader(self) -> ResumableDataLoader | list:
        return [] if self.val_set is None else self._loader(self.val_set, len(self.val_set))

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Record what the loader had to skip."""
        if self._skip_log is None:
            self._skip_log = SkipLog(self.skipped, rank=self.trainer.global_rank if self.trainer else 0)
        self._skip_log.record(batch, self.trainer.current_epoch if self.trainer else 0)
        return batch

    def _sources(self, given: Sources, split: str) -> list[Source]:
        return as_sources(given, split=split, neighbours=self.neighbours, two_crops=self.two_crops)

    def _open(self, source: Source, **settings: Any) -> CropDataset:
        settings |= {"gt_size": self.gt_size, "seed": self.seed}
        settings |= {"two_crops": source.two_crops, "max_overlap": self.max_overlap}
        if is_shards(source.path):
            if source.neighbours is not None:
                raise RasrError(
                    f"neighbours={source.neighbours} does not go with the shards {source.path}, which hold "
                    "their references; give this set neighbours: null, or pack it again with --neighbours"
                )
            return ShardDataset(source.path, **settings)
        return ReferenceDataset(source.path, split=source.split, neighbours=source.neighbours, **settings)

    def _loader(
        self, dataset: Dataset, order: int | MixedOrder, *, shuffle: bool = False
    ) -> ResumableDataLoader:
        world_size, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = ResumableDistributedSampler(
            order, world_size=world_size, rank=rank, shuffle=shuffle, seed=self.seed
        )
        return ResumableDataLoader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class TwoViewDataModule(RASRDataModule):
    """Pairs of views of the same photographs (:class:`rasr.data.two_view.TwoViewDataset`)."""

    def __init__(self, train: Sources, *, views: int, val_views: int = 1, **settings: Any) -> None:
        """Keep the settings.

        Args:
            train: see :class:`RASRDataModule`.
            views: pairs made of each photograph.
            val_views: likewise in validation.
            settings: of :class:`RASRDataModule`.
        """
        super().__init__(train, neighbours=None, two_crops=True, max_overlap=1.0, **settings)
        self.views, self.val_views = views, val_views

    def _open(self, source: Source, **settings: Any) -> CropDataset:
        views = self.val_views if settings.get("is_fixed") else self.views
        settings |= {"gt_size": self.gt_size, "seed": self.seed}
        return TwoViewDataset(source.path, split=source.split, views=views, **settings)
