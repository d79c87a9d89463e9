"""A reference of a photograph, wherever it comes from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from rasr.retrieval import Hit, softmax_weights


@dataclass(frozen=True)
class Reference:
    """One reference of one photograph; its pixels are read when they are needed."""

    id: str
    """Entry of the index, or path."""
    read: Callable[[], Tensor]
    """Gives (3, H, W) in [0, 1]."""
    prompt: str = ""
    """Its text."""
    score: float | None = None
    """Cosine to the photograph; None where nothing was compared."""
    weight: float = 1.0
    """a_n, its share among several; the shares sum to 1."""
    key: str | None = None
    """By which things kept about it are found: the content hash of its file, with the box of a crop."""


def weigh(references: Sequence[Reference], temperature: float = 1.0) -> list[Reference]:
    """The same references with shares from their scores (ReFIR, appendix A)."""
    if not references:
        return []
    shares = softmax_weights([reference.score or 0.0 for reference in references], temperature)
    return [replace(reference, weight=float(a)) for reference, a in zip(references, shares, strict=True)]


def from_hit(hit: Hit) -> Reference:
    """A hit of the retriever as a reference; its shares among several are not set yet."""
    box = "" if hit.box is None else "-" + "-".join(map(str, hit.box))
    read = lru_cache(maxsize=1)(hit.read)
    return Reference(hit.id, read, hit.prompt, hit.score, key=hit.content_hash + box)
