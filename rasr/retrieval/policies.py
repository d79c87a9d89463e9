"""Which reference a query gets: `Always`, `RandomReference` or `Given`.

The papers' choices: RASR always takes the best hit; ReFIR restores with the backbone alone where the best hit
is too unlike (its "origin" fallback); Table 5's row "None" draws at random; WR-SR and CUFED5 give the
references.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from torch import Tensor

from rasr.errors import RasrError
from rasr.image_io import content_hash, list_images, read_sidecar
from rasr.retrieval.retriever import Hit, LeakGuard, Retriever, to_hit


@dataclass(frozen=True)
class Query:
    """An image that wants references.

    Attributes:
        image: (3, H, W), RGB, in [0, 1].
        path: its file; the guard keeps its content away from it, whatever the name.
        category: search in this one only; None searches all.
        exclude_ids: further images of the index that it must not get.
    """

    image: Tensor
    path: Path
    category: str | None = None
    exclude_ids: Collection[str] = ()

    @cached_property
    def content_hash(self) -> str:
        """Of the file; it is read once, however often the guard and the draw ask."""
        return content_hash(self.path)


class ReferencePolicy(Protocol):
    """Chooses references."""

    def choose(self, query: Query, retriever: Retriever | None, k: int = 1) -> list[Hit]:
        """At most k references, best first; none means: restore with the backbone alone."""


class Always:
    """The best hits, however unlike.

    Args:
        max_score: hits above this cosine are near-duplicates and passed over; None allows all.
    """

    def __init__(self, *, max_score: float | None = None) -> None:
        self.max_score = max_score

    def choose(self, query: Query, retriever: Retriever, k: int = 1) -> list[Hit]:
        guard = _guard(query, self.max_score)
        vector = retriever.encoder.encode([query.image]).numpy()[0]
        return retriever.find(vector, k, query.category, guard)


class RandomReference:
    """Any image of the index, the same for the same photograph and seed.

    Args:
        seed: another seed, other references.
        max_score: see `Always`.
    """

    def __init__(self, *, seed: int = 0, max_score: float | None = None) -> None:
        self.seed, self.max_score = seed, max_score
        self._entries: dict[str | None, list[str]] = {}

    def choose(self, query: Query, retriever: Retriever, k: int = 1) -> list[Hit]:
        ids = self._ids(retriever, query.category)
        guard = _guard(query, self.max_score)
        vector = retriever.encoder.encode([query.image]).numpy()[0]
        rng = np.random.default_rng([self.seed, int(query.content_hash[:15], 16)])
        hits: dict[str, Hit] = {}
        for number in rng.permutation(len(ids)):
            entry_id = ids[number]
            payload = retriever.index.payload(entry_id)
            score = float(retriever.index.vectors([entry_id])[0] @ vector)
            if payload.image not in hits and guard.allows(entry_id, payload, score):
                hits[payload.image] = to_hit(entry_id, payload, score)
            if len(hits) == k:
                break
        return list(hits.values())

    def _ids(self, retriever: Retriever, category: str | None) -> list[str]:
        if category is not None:
            retriever.check_category(category)
        if category not in self._entries:
            entries = retriever.index.entries()
            self._entries[category] = sorted(i for i, p in entries if category in (None, p.category))
        return self._entries[category]


class Given:
    """References that the user names: one for all, or one per photograph.

    Args:
        reference: an image; or a folder in which each photograph finds the image of its own name, whatever
            the suffix.
    """

    def __init__(self, reference: str | Path) -> None:
        self.reference = Path(reference)
        self._single = self._hit(self.reference) if self.reference.is_file() else None
        self._by_stem = {} if self._single else {path.stem: path for path in list_images(self.reference)}

    def choose(self, query: Query, retriever: Retriever | None = None, k: int = 1) -> list[Hit]:
        if self._single is not None:
            return [self._single]
        if query.path.stem not in self._by_stem:
            raise RasrError(f"{self.reference}: no reference named {query.path.stem}; add one")
        return [self._hit(self._by_stem[query.path.stem])]

    @staticmethod
    def _hit(path: Path) -> Hit:
        return Hit(str(path), 1.0, path, "", read_sidecar(path), content_hash(path))


def softmax_weights(scores: Collection[float], temperature: float = 1.0) -> np.ndarray:
    """Weights of several references that sum to 1 (ReFIR, appendix A).

    Args:
        scores: cosines of the references with the query.
        temperature: the paper's 1 makes them nearly equal, since cosines lie close together; lower values
            prefer the best.

    Returns:
        float32, one per score.
    """
    if temperature <= 0:
        raise RasrError(f"temperature={temperature}: must be above 0")
    scaled = np.asarray(list(scores), dtype=np.float64) / temperature
    weights = np.exp(scaled - scaled.max(initial=-np.inf))
    return (weights / weights.sum()).astype(np.float32)


def _guard(query: Query, max_score: float | None) -> LeakGuard:
    return LeakGuard(query.exclude_ids, [query.content_hash], [query.path], max_score)
