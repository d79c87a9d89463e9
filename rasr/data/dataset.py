"""Training and validation samples: a clean image, one of its references, its prompt and its seed.

It does not degrade: the training module does that for the whole batch, from `seed`.
"""

from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypedDict

from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset

from rasr.data.manifest import read_rows
from rasr.data.seeding import SampleRandom, sample_seed
from rasr.errors import RasrError
from rasr.image_io import read_image

HEADER_READERS = 8
BAD_FILES_SHOWN = 5


class Sample(TypedDict, total=False):
    """One item of :class:`ReferenceDataset`; batches hold the same keys, stacked."""

    gt: Tensor
    """(3, S, S), RGB, [0, 1]."""
    ref: Tensor
    """(3, S, S), RGB, [0, 1]; absent if the rows have no references."""
    prompt: str
    sample_id: str
    seed: int
    """Of the degradation, in [0, 2**63)."""


class ReferenceDataset(Dataset[Sample]):
    """Crops of the images of a manifest or folder, each with a crop of one of its references.

    All randomness (crops, flip, the choice of the reference, the degradation's seed) derives from
    hash(seed, epoch, sample id). The epoch comes with the index, as the pair (epoch, index) that
    :class:`rasr.data.ResumableDistributedSampler` yields, because copies of the data set in worker
    processes do not see :meth:`set_epoch`; a plain index takes the epoch of `set_epoch`.
    """

    def __init__(
        self,
        source: str | Path,
        *,
        split: str,
        gt_size: int,
        seed: int,
        random_crop: bool = True,
        hflip: bool = True,
        is_fixed: bool = False,
    ) -> None:
        """List the images and check them.

        Args:
            source: a CSV manifest, or a folder.
            split: the rows to take; a folder is one split, whatever its name.
            gt_size: side of the crops, in pixels.
            seed: the run's seed.
            random_crop: crop image and reference at random places of their own; else at their centres.
            hflip: mirror half of the samples, the reference with its image.
            is_fixed: repeat epoch 0 in every epoch (validation).
        """
        self.source = Path(source)
        self.gt_size = gt_size
        self.seed = seed
        self.random_crop = random_crop
        self.hflip = hflip
        self.is_fixed = is_fixed
        self.epoch = 0
        self.rows = read_rows(source, split)
        self._check_rows(split)
        self._check_files()

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def has_references(self) -> bool:
        """Whether samples have `ref`: all rows have references, or none."""
        return bool(self.rows[0].references)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of plain indexes."""
        self.epoch = epoch

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (self.epoch, key)
        if self.is_fixed:
            epoch = 0
        row = self.rows[index]
        rng = SampleRandom(sample_seed(self.seed, epoch, row.image, "crop"))
        flip = self.hflip and rng.chance(0.5)
        sample: Sample = {
            "gt": self._crop(row.image_path, flip, rng),
            "prompt": row.prompt,
            "sample_id": row.image,
            "seed": sample_seed(self.seed, epoch, row.image),
        }
        if row.references:
            sample["ref"] = self._crop(rng.choice(row.reference_paths), flip, rng)
        return sample

    def _crop(self, path: Path, flip: bool, rng: SampleRandom) -> Tensor:
        image = read_image(path)
        free_y, free_x = image.shape[1] - self.gt_size, image.shape[2] - self.gt_size
        top, left = free_y // 2, free_x // 2
        if self.random_crop:
            top, left = rng.integer(free_y + 1), rng.integer(free_x + 1)
        crop = image[:, top : top + self.gt_size, left : left + self.gt_size]
        return (crop.flip(-1) if flip else crop).contiguous()

    def _check_rows(self, split: str) -> None:
        repeated = [image for image, count in Counter(row.image for row in self.rows).items() if count > 1]
        if repeated:
            raise RasrError(f"{self.source}: split {split!r} lists {repeated[0]} twice; delete one row")
        bare = [row for row in self.rows if not row.references]
        if bare and len(bare) < len(self.rows):
            raise RasrError(
                f"{self.source}: {len(bare)} of {len(self.rows)} rows of split {split!r} have no references, "
                f"the first is {bare[0].image}; give every row references, or none"
            )

    def _check_files(self) -> None:
        """Read every header once, so that a bad file stops the run before it starts."""
        users: dict[Path, str] = {}
        for path, user in self._files():
            users.setdefault(path, user)
        with ThreadPoolExecutor(HEADER_READERS) as pool:
            faults = list(pool.map(self._find_fault, users))
        bad = [f"{user}: {fault}" for user, fault in zip(users.values(), faults, strict=True) if fault]
        if bad:
            rest = f"; and {len(bad) - BAD_FILES_SHOWN} more" if len(bad) > BAD_FILES_SHOWN else ""
            raise RasrError(
                f"{self.source}: {len(bad)} of {len(users)} image files cannot be used (replace them, delete "
                f"their rows or lower gt_size): {'; '.join(bad[:BAD_FILES_SHOWN])}{rest}"
            )

    def _files(self) -> Iterator[tuple[Path, str]]:
        """Yield every file with the words that lead a user to it."""
        for row in self.rows:
            place = f"line {row.number}, " if row.number else ""
            yield row.image_path, f"{place}{row.image_path}"
            for path in row.reference_paths:
                yield path, f"{place}reference {path}"

    def _find_fault(self, path: Path) -> str | None:
        try:
            with Image.open(path) as image:
                width, height = image.size
        except FileNotFoundError:
            return "no such file"
        except UnidentifiedImageError:
            return "not an image that Pillow can read"
        except Exception as error:  # Pillow's plugins raise nearly any type on damaged headers
            return f"unreadable ({' '.join(str(error).split()) or type(error).__name__})"
        if min(width, height) < self.gt_size:
            return f"{width}x{height} is smaller than gt_size {self.gt_size}"
        return None
