"""Several training sets in one: which share each has, and in which order their samples come."""

import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Dataset

from rasr.data.dataset import CropDataset, Sample
from rasr.errors import RasrError
from rasr.seeding import sample_seed


@dataclass(frozen=True)
class Source:
    """One of the sets that training draws from."""

    path: str | Path
    """Manifest (CSV or Parquet), folder, or set of shards."""
    weight: float = 1.0
    """Share of the samples, relative to the other sets' weights."""
    split: str = "train"
    neighbours: str | Path | None = None
    """Parquet file of references, in place of the manifest's."""
    two_crops: bool = False
    """The reference is another crop of the image itself."""


def as_sources(given: str | Path | Sequence[Mapping[str, Any]], **defaults: Any) -> list[Source]:
    """Read what a configuration says: one path, or a list of mappings with the fields of :class:`Source`."""
    if isinstance(given, str | Path | int):  # a name like 2024 comes as a number
        return [Source(str(given), **defaults)]
    known = {field.name for field in fields(Source)}
    sources = []
    for entry in [given] if isinstance(given, Mapping) else given:
        if not isinstance(entry, Mapping) or "path" not in entry:
            raise RasrError(f"data set {entry!r} has no path; give {{path: ..., weight: ...}}")
        if unknown := sorted(set(entry) - known):
            raise RasrError(
                f"data set {entry['path']}: unknown key {unknown[0]!r}; it may have {sorted(known)}"
            )
        source = Source(**{**defaults, **entry, "path": str(entry["path"])})
        if not source.weight > 0:
            raise RasrError(
                f"data set {source.path}: weight={source.weight} is not positive; leave the set out"
            )
        sources.append(source)
    if not sources:
        raise RasrError("the list of data sets is empty; give at least one {path: ...}")
    return sources


class MixedDataset(Dataset[Sample]):
    """Several data sets, one behind the other; the order of :class:`MixedOrder` mixes them."""

    def __init__(self, sets: Sequence[CropDataset]) -> None:
        self.sets = list(sets)
        self._ends = list(accumulate(map(len, self.sets)))
        bare = [number for number, part in enumerate(self.sets, 1) if not part.has_references]
        if bare and len(bare) < len(self.sets):
            raise RasrError(
                f"data set {bare[0]} of {len(self.sets)} has no references and others have; "
                "give it some, or two_crops: true"
            )

    def __len__(self) -> int:
        return self._ends[-1]

    @property
    def has_references(self) -> bool:
        return self.sets[0].has_references

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of plain indexes."""
        for part in self.sets:
            part.set_epoch(epoch)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (None, key)
        number = bisect_right(self._ends, index)
        index -= self._ends[number] - len(self.sets[number])
        return self.sets[number][index if epoch is None else (epoch, index)]


class MixedOrder:
    """The order of an epoch over several sets of given sizes, mixed by weight.

    Each set is an endless stream of passes, every pass a permutation of its own; an epoch takes the next
    samples of each stream, as many as the weights say, and shuffles the streams into one another. An epoch
    is so long that the set which comes round most slowly comes round once. So within a pass no sample of a
    set comes twice and none is lost, whatever the weights; and no (pass, index) ever returns, so that a
    sample that comes again is cropped and degraded anew.

    Attributes:
        sizes: samples of each set.
        counts: samples that an epoch takes from each.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None = None) -> None:
        weights = [float(size) for size in sizes] if weights is None else list(weights)
        self.sizes = list(sizes)
        slowest = max(size / weight for size, weight in zip(sizes, weights, strict=True))
        self.counts = [
            max(size, math.ceil(round(weight * slowest, 6)))
            for size, weight in zip(sizes, weights, strict=True)
        ]

    def __len__(self) -> int:
        """Samples of an epoch."""
        return sum(self.counts)

    def draw(self, epoch: int, *, seed: int, shuffle: bool) -> list[tuple[int, int]]:
        """Return the (pass, index) pairs of an epoch; indexes count through all sets."""
        numbers = range(len(self.sizes))
        streams = [self._stream(number, epoch, seed, shuffle) for number in numbers]
        turns = [number for number in numbers for _ in range(self.counts[number])]
        if shuffle and len(self.sizes) > 1:
            generator = torch.Generator().manual_seed(sample_seed(seed, epoch, "turns"))
            turns = [turns[i] for i in torch.randperm(len(turns), generator=generator).tolist()]
        return [next(streams[number]) for number in turns]

    def _stream(self, number: int, epoch: int, seed: int, shuffle: bool) -> Iterator[tuple[int, int]]:
        """Yield the samples of one set from the epoch's first on."""
        size, before = self.sizes[number], sum(self.sizes[:number])
        position = epoch * self.counts[number]
        while True:
            turn, start = divmod(position, size)
            order = range(size)
            if shuffle:
                generator = torch.Generator().manual_seed(sample_seed(seed, turn, "order", number))
                order = torch.randperm(size, generator=generator).tolist()
            for index in order[start:]:
                yield turn, before + index
            position += size - start
