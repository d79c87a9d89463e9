"""From an image to its references: encode, search, never find the image itself."""

import os
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from torch import Tensor

from rasr.errors import RasrError
from rasr.image_io import read_image
from rasr.retrieval.encoders.base import ImageEncoder
from rasr.retrieval.encoders.registry import encoder_from_settings
from rasr.retrieval.engines.base import ReferenceIndex
from rasr.retrieval.patches import crop
from rasr.retrieval.payload import Box, Payload


@dataclass(frozen=True)
class Hit:
    """A reference that was found; `score` is the cosine, `path` the file, the rest as in the index."""

    id: str
    score: float
    path: Path
    category: str
    prompt: str
    content_hash: str
    box: Box | None = None

    def read(self) -> Tensor:
        """The reference, (3, H, W) in [0, 1]: the image, or in patch mode the crop that was found."""
        return crop(read_image(self.path), self.box)


@dataclass(frozen=True)
class LeakGuard:
    """What a query must not find.

    Attributes:
        ids: ids of images: the query's own, when it is itself in the database.
        hashes: content hashes: the query's own file, under whatever id.
        paths: files, likewise.
        max_score: hits above this cosine are near-duplicates of the query and passed over; None allows all.
    """

    ids: Collection[str] = ()
    hashes: Collection[str] = ()
    paths: Collection[str | Path] = ()
    max_score: float | None = None

    @cached_property
    def _real_paths(self) -> set[str]:
        return {os.path.realpath(path) for path in self.paths}

    def allows(self, entry_id: str, payload: Payload, score: float) -> bool:
        return not (
            entry_id in self.ids
            or payload.image in self.ids
            or payload.content_hash in self.hashes
            or (self.max_score is not None and score > self.max_score)
            or (self._real_paths and os.path.realpath(payload.path) in self._real_paths)
        )


class Retriever:
    """Cosine top-k over an index, with the encoder that built it."""

    def __init__(self, index: ReferenceIndex, encoder: ImageEncoder) -> None:
        check_encoder(index, encoder)
        self.index = index
        self.encoder = encoder
        self._categories: dict[str, int] | None = None

    @classmethod
    def open(cls, location: str | Path, *, device: str = "auto") -> "Retriever":
        """Open an index and make the encoder that built it, from the settings kept in the index."""
        index = ReferenceIndex.open(location)
        try:
            return cls(index, encoder_from_settings(index.encoder_settings, device))
        except BaseException:
            index.close()
            raise

    def close(self) -> None:
        """Let other processes use the index."""
        self.index.close()

    def __enter__(self) -> "Retriever":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def retrieve(
        self,
        image: Tensor,
        k: int = 1,
        category: str | None = None,
        exclude_ids: Collection[str] = (),
        exclude_hashes: Collection[str] = (),
        *,
        exclude_paths: Collection[str | Path] = (),
        max_score: float | None = None,
    ) -> list[Hit]:
        """Find the best references of one image.

        Args:
            image: (3, H, W), RGB, in [0, 1], any size.
            k: how many images are wanted; fewer come back where the index allows fewer.
            category: search in this category only.
            exclude_ids: the leak guard, see `LeakGuard`.
            exclude_hashes: likewise.
            exclude_paths: likewise.
            max_score: likewise.

        Returns:
            Best first; of several crops of one image only the best.
        """
        guard = LeakGuard(exclude_ids, exclude_hashes, exclude_paths, max_score)
        return self.find(self.encoder.encode([image]).numpy()[0], k, category, guard)

    def find(self, vector: np.ndarray, k: int, category: str | None, guard: LeakGuard) -> list[Hit]:
        """As `retrieve`, for the vector (dim,) of an image."""
        if category is not None:
            self.check_category(category)
        wanted = None if category is None else {"category": category}
        limit = k
        while True:
            (ids,), (scores,) = self.index.search(vector[None], limit, wanted)
            hits: dict[str, Hit] = {}
            for entry_id, payload, score in zip(ids, self.index.payloads(ids), scores, strict=True):
                if payload.image not in hits and guard.allows(entry_id, payload, float(score)):
                    hits[payload.image] = to_hit(entry_id, payload, float(score))
            if len(hits) >= k or len(ids) < limit:
                return list(hits.values())[:k]
            limit = 4 * limit  # the guard, or several crops of one image, took places

    def check_category(self, category: str) -> None:
        """Refuse a category that the index does not have."""
        if self._categories is None:
            self._categories = self.index.categories()
        if category not in self._categories:
            names = ", ".join(name for name in self._categories if name) or "none"
            place = self.index.location
            raise RasrError(f"category {category!r} is not in the index {place}; it has: {names}")


def to_hit(entry_id: str, payload: Payload, score: float) -> Hit:
    """Put together what a search and the index say of an entry."""
    return Hit(
        entry_id,
        score,
        Path(payload.path),
        payload.category,
        payload.prompt,
        payload.content_hash,
        payload.box,
    )


def check_encoder(index: ReferenceIndex, encoder: ImageEncoder) -> None:
    """Refuse an encoder whose vectors cannot be compared with those in the index."""
    if (index.encoder_name, index.encoder_version) != (encoder.name, encoder.version):
        raise RasrError(
            f"{index.location}: built by encoder {index.encoder_name} version {index.encoder_version}, "
            f"but this is {encoder.name} version {encoder.version}; "
            "use that encoder with its weights and settings, or build another index"
        )
