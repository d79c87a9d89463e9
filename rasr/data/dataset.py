"""Training and validation samples: a clean image, one of its references, its prompt and its seed.

It does not degrade: the training module does that for the whole batch, from `seed`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from rasr.data.file_check import check_files
from rasr.data.manifest import Row, read_rows
from rasr.data.neighbours import attach_neighbours
from rasr.errors import RasrError
from rasr.image_io import ImageReadError, read_pixels, to_tensor
from rasr.seeding import SampleRandom, sample_seed

REPLACEMENTS = 10  # unreadable samples in a row after which the storage itself is taken to be gone
SECOND_CROP_DRAWS = 16


class Sample(TypedDict, total=False):
    """One item of a :class:`CropDataset`; batches hold the same keys, stacked."""

    gt: Tensor
    """(3, S, S), RGB, [0, 1]."""
    ref: Tensor
    """(3, S, S), RGB, [0, 1]; absent if the rows have no references."""
    prompt: str
    sample_id: str
    seed: int
    """Of the degradation, in [0, 2**63)."""
    skipped: str
    """Which unreadable samples this one stands in for, and why; "" as a rule."""


class CropDataset(Dataset[Sample], ABC):
    """Square crops of images, each with a crop of one of its references.

    All randomness (crops, flip, the choice of the reference, the degradation's seed) derives from
    hash(seed, epoch, sample id). The epoch comes with the index, as the pair (epoch, index) that
    :class:`rasr.data.ResumableDistributedSampler` yields, because copies of the data set in worker
    processes do not see :meth:`set_epoch`; a plain index takes the epoch of `set_epoch`.

    An image that cannot be decoded is replaced by the next sample that can, with crops and a degradation
    of its own, and the sample's `skipped` says so. Which sample that is depends on the data alone: it is the
    same on every rank and after a resume, and all ranks keep the same number of samples.
    """

    def __init__(
        self,
        *,
        gt_size: int,
        seed: int,
        random_crop: bool = True,
        hflip: bool = True,
        is_fixed: bool = False,
        two_crops: bool = False,
        max_overlap: float = 0.5,
    ) -> None:
        """Keep the settings.

        Args:
            gt_size: side of the crops, in pixels.
            seed: the run's seed.
            random_crop: crop image and reference at random places of their own; else at their centres.
            hflip: mirror half of the samples, the reference with its image.
            is_fixed: repeat epoch 0 in every epoch (validation).
            two_crops: the reference is another random crop of the image itself, as the paper does on LSDIR.
            max_overlap: of those two crops, as a share of their area; where the image is too small for that,
                the least of 16 draws. Choice: the paper is silent; 1 takes any two crops.
        """
        if not 0 <= max_overlap <= 1:
            raise RasrError(f"max_overlap={max_overlap} is no share; give a value from 0 to 1")
        self.gt_size = gt_size
        self.seed = seed
        self.random_crop = random_crop
        self.hflip = hflip
        self.is_fixed = is_fixed
        self.two_crops = two_crops
        self.max_overlap = max_overlap
        self.epoch = 0

    @abstractmethod
    def __len__(self) -> int: ...

    @property
    @abstractmethod
    def has_references(self) -> bool:
        """Whether samples have `ref`: all of them, or none."""

    @abstractmethod
    def row(self, index: int) -> Row:
        """Return what the manifest says of a sample."""

    @abstractmethod
    def pixels(self, index: int, reference: int | None) -> np.ndarray:
        """Decode a sample's image, or one of its references by number; see `rasr.image_io.read_pixels`."""

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of plain indexes."""
        self.epoch = epoch

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (self.epoch, key)
        if self.is_fixed:
            epoch = 0
        skipped: list[str] = []
        for step in range(min(REPLACEMENTS, len(self))):
            stands_in_for = ("instead of", self.row(index).id) if step else ()
            try:
                sample = self._crop_sample(epoch, (index + step) % len(self), stands_in_for)
            except ImageReadError as error:
                skipped.append(str(error))
            else:
                return {**sample, "skipped": "; ".join(skipped)}
        raise RasrError(f"{len(skipped)} samples in a row cannot be read; check the storage: {skipped[0]}")

    def _crop_sample(self, epoch: int, index: int, extra: tuple[str, ...]) -> Sample:
        row = self.row(index)
        rng = SampleRandom(sample_seed(self.seed, epoch, row.id, "crop", *extra))
        flip = self.hflip and rng.chance(0.5)
        image = self._load(index, None)
        place = self._place(image, rng)
        sample: Sample = {
            "gt": self._cut(image, place, flip),
            "prompt": row.prompt,
            "sample_id": row.id,
            "seed": sample_seed(self.seed, epoch, row.id, *extra),
        }
        if self.two_crops:
            sample["ref"] = self._cut(image, self._second_place(image, place, rng), flip)
        elif self.has_references:
            reference = self._load(index, rng.integer(len(row.references)))
            sample["ref"] = self._cut(reference, self._place(reference, rng), flip)
        return sample

    def _load(self, index: int, reference: int | None) -> np.ndarray:
        pixels = self.pixels(index, reference)
        if min(pixels.shape[:2]) < self.gt_size:
            name = self.row(index).id if reference is None else self.row(index).references[reference]
            height, width = pixels.shape[:2]
            raise ImageReadError(f"{name}: {width}x{height} is smaller than gt_size {self.gt_size}")
        return pixels

    def _place(self, image: np.ndarray, rng: SampleRandom) -> tuple[int, int]:
        """Return top and left of a crop."""
        free_y, free_x = self._free(image)
        if self.random_crop:
            return rng.integer(free_y + 1), rng.integer(free_x + 1)
        return free_y // 2, free_x // 2

    def _second_place(self, image: np.ndarray, first: tuple[int, int], rng: SampleRandom) -> tuple[int, int]:
        """Draw a crop that overlaps the first no more than is allowed."""
        free_y, free_x = self._free(image)
        best, least = first, 1.0
        for _ in range(SECOND_CROP_DRAWS):
            place = rng.integer(free_y + 1), rng.integer(free_x + 1)
            sides = [max(0, self.gt_size - abs(a - b)) for a, b in zip(place, first, strict=True)]
            overlap = sides[0] * sides[1] / self.gt_size**2
            if overlap <= self.max_overlap:
                return place
            if overlap < least:
                best, least = place, overlap
        return best

    def _free(self, image: np.ndarray) -> tuple[int, int]:
        return image.shape[0] - self.gt_size, image.shape[1] - self.gt_size

    def _cut(self, image: np.ndarray, place: tuple[int, int], flip: bool) -> Tensor:
        # Cut first: to make floats of the whole image costs more than to decode it.
        top, left = place
        crop = to_tensor(image[top : top + self.gt_size, left : left + self.gt_size])
        return crop.flip(-1).contiguous() if flip else crop


class ReferenceDataset(CropDataset):
    """Crops of the images of a manifest or folder; see :class:`CropDataset`."""

    def __init__(
        self, source: str | Path, *, split: str, neighbours: str | Path | None = None, **settings
    ) -> None:
        """List the images and check their headers, so that a bad file stops the run before it starts.

        Args:
            source: a CSV or Parquet manifest, or a folder.
            split: the rows to take; a folder is one split, whatever its name.
            neighbours: Parquet file of references, in place of the manifest's (:mod:`rasr.data.neighbours`).
            settings: of :class:`CropDataset`.
        """
        super().__init__(**settings)
        if neighbours is not None and self.two_crops:
            raise RasrError(
                f"{source}: neighbours={neighbours} and two_crops=true exclude each other; give this set "
                "neighbours: null or two_crops: false"
            )
        self.source = Path(source)
        self.rows = read_rows(source, split)
        self._check_ground_truth(split)
        if neighbours is not None:
            self.rows = attach_neighbours(self.rows, neighbours)
        self._check_references(split)
        check_files(self.source, self._files(), self.gt_size)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_references(self) -> bool:
        return self.two_crops or bool(self.rows[0].references)

    def row(self, index: int) -> Row:
        return self.rows[index]

    def pixels(self, index: int, reference: int | None) -> np.ndarray:
        row = self.rows[index]
        is_image = reference is None
        path = row.image_path if is_image else row.reference_paths[reference]
        try:
            pixels = read_pixels(path)
        except ImageReadError as error:
            kind = "" if is_image else "reference"
            raise ImageReadError(
                f"{self.source}: {row.describe(path, kind)}{str(error)[len(str(path)) :]}"
            ) from error
        return pixels

    def _check_ground_truth(self, split: str) -> None:
        blind = [row for row in self.rows if not row.image]
        if blind:
            raise RasrError(
                f"{self.source}: {len(blind)} of {len(self.rows)} rows of split {split!r} have no ground "
                f"truth, the first is {blind[0].id}; such a set is for infer.py input="
            )
        repeated = [image for image, count in Counter(row.image for row in self.rows).items() if count > 1]
        if repeated:
            raise RasrError(f"{self.source}: split {split!r} lists {repeated[0]} twice; delete one row")

    def _check_references(self, split: str) -> None:
        if self.two_crops:
            return
        bare = [row for row in self.rows if not row.references]
        if bare and len(bare) < len(self.rows):
            raise RasrError(
                f"{self.source}: {len(bare)} of {len(self.rows)} rows of split {split!r} have no references, "
                f"the first is {bare[0].image}; give every row references, or none"
            )
        own = next((row for row in self.rows if row.image_path in row.reference_paths), None)
        if own is not None:
            raise RasrError(
                f"{self.source}, {own.place}: {own.image} is its own reference; take it out, "
                "or use two_crops for another crop of the same image"
            )

    def _files(self) -> Iterator[tuple[Path, str]]:
        """Yield every file that will be read with the words that lead a user to it."""
        for row in self.rows:
            yield row.image_path, row.describe(row.image_path)
            if not self.two_crops:
                for path in row.reference_paths:
                    yield path, row.describe(path, "reference")
