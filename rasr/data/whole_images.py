"""Test sets: whole images of any size, with or without ground truth, and their given references."""

from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict

from torch import Tensor
from torch.utils.data import Dataset

from rasr.data.file_check import check_files
from rasr.data.manifest import Row, read_rows
from rasr.data.neighbours import attach_neighbours
from rasr.data.seeding import sample_seed
from rasr.image_io import read_image


class WholeImage(TypedDict, total=False):
    """One item of :class:`WholeImageDataset`; images differ in size, so that batches hold one each."""

    gt: Tensor
    """(3, H, W), RGB, [0, 1]; absent in a set without ground truth."""
    lq: Tensor
    """(3, h, w), RGB, [0, 1]; absent if the set leaves the degradation to the program."""
    ref: Tensor
    """(3, H', W'), RGB, [0, 1]: the best reference; absent if the row has none."""
    reference_paths: list[str]
    """All references, best first."""
    prompt: str
    sample_id: str
    seed: int
    """For the degradation of `gt`, in [0, 2**63); the same in every epoch."""


class WholeImageDataset(Dataset[WholeImage]):
    """The images of a manifest or folder as they are; a damaged file is an error, never skipped."""

    def __init__(
        self, source: str | Path, *, split: str, seed: int, neighbours: str | Path | None = None
    ) -> None:
        """List the images and check their headers.

        Args:
            source: a CSV or Parquet manifest, or a folder (of ground truth).
            split: the rows to take; a folder is one split, whatever its name.
            seed: the run's seed.
            neighbours: Parquet file of references, in place of the manifest's (:mod:`rasr.data.neighbours`).
        """
        self.source = Path(source)
        self.seed = seed
        self.rows = read_rows(source, split)
        if neighbours is not None:
            self.rows = attach_neighbours(self.rows, neighbours)
        check_files(self.source, self._files(), min_side=1)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, key: int | tuple[int, int]) -> WholeImage:
        row = self.rows[key[1] if isinstance(key, tuple) else key]
        sample: WholeImage = {
            "prompt": row.prompt,
            "sample_id": row.id,
            "seed": sample_seed(self.seed, 0, row.id),
            "reference_paths": [str(path) for path in row.reference_paths],
        }
        for name, path in self._parts(row):
            sample[name] = read_image(path)
        return sample

    def _parts(self, row: Row) -> Iterator[tuple[str, Path]]:
        if row.image:
            yield "gt", row.image_path
        if row.lq:
            yield "lq", row.lq_path
        if row.references:
            yield "ref", row.reference_paths[0]

    def _files(self) -> Iterator[tuple[Path, str]]:
        for row in self.rows:
            for name, path in self._parts(row):
                if name != "ref":
                    yield path, row.describe(path)
            for path in row.reference_paths:
                yield path, row.describe(path, "reference")
