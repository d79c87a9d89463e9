"""The references of a photograph as both systems take them, and the kinds of ReFIR's Table 6."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from rasr.checks import check_number_or_none, check_whole
from rasr.errors import RasrError
from rasr.image_io import content_hash, read_image, read_sidecar
from rasr.image_ops import resize_bicubic

if TYPE_CHECKING:
    from rasr.retrieval import Hit, Query, Retriever

KINDS = ("found", "none", "self", "random")


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


class Listed:
    """References that a manifest gives, as a policy of `rasr.retrieval`.

    Args:
        references: of each photograph, best first; none is fine.
    """

    def __init__(self, references: Mapping[Path, Sequence[Path]]) -> None:
        self.references = references
        lost = [path for paths in references.values() for path in paths if not path.is_file()]
        if lost:
            raise RasrError(
                f"{lost[0]}: no such reference ({len(lost)} in all are missing); mend the manifest's column "
                "references, or give reference_kind=none"
            )

    def choose(self, query: Query, retriever: Retriever | None = None, k: int = 1) -> list[Hit]:
        from rasr.retrieval import Hit

        paths = self.references.get(query.path, ())[:k]
        return [Hit(str(path), 1.0, path, "", read_sidecar(path), content_hash(path)) for path in paths]


class ReferenceFinder:
    """Finds the references of a photograph.

    Args:
        kind: "found" takes what `given` or the retriever have, else nothing. The others are rows of Table 6:
            "none"; "self", the LR image enlarged bicubically; "random", entries of the index. (Its "HQRef" is
            the folder of ground truth as `given`.)
        retriever: needed for "random".
        given: an image for all photographs, or a folder with one of each photograph's name.
        listed: the references that each photograph has in a manifest, best first; they serve where there is
            neither `given` nor a retriever.
        category: search in this category only.
        k: how many references are wanted.
        temperature: of the shares of several, see `rasr.retrieval.softmax_weights`.
        max_score: entries above this cosine are near-duplicates and passed over; None takes all.
        scale: enlargement of "self".
    """

    def __init__(
        self,
        kind: str = "found",
        *,
        retriever: Retriever | None = None,
        given: str | Path | None = None,
        listed: Mapping[Path, Sequence[Path]] | None = None,
        category: str | None = None,
        k: int = 1,
        temperature: float = 1.0,
        max_score: float | None = None,
        scale: int = 4,
    ) -> None:
        from rasr.retrieval import Always, Given, RandomReference

        if kind not in KINDS:
            raise RasrError(f"reference_kind={kind!r} is unknown; give one of {', '.join(KINDS)}")
        if kind == "random" and retriever is None:
            raise RasrError("reference_kind=random draws from an index; give index=")
        check_whole("references", k, least=1)
        if not isinstance(temperature, float | int) or temperature <= 0:
            raise RasrError(f"temperature={temperature}: give a number above 0")
        check_number_or_none("max_score", max_score)
        self.kind = kind
        self.retriever = retriever
        policy = RandomReference if kind == "random" else Always
        self.policy = policy(max_score=max_score)
        if kind == "found" and given is not None:
            self.policy, self.retriever = Given(given), None
            if Path(given).is_file():
                read_image(given)  # a file that is no image shows before long work starts
        has_listed = any((listed or {}).values())
        if kind == "found" and given is None and retriever is None and has_listed:
            self.policy = Listed(listed)
        is_without = retriever is None and given is None and not has_listed
        self.is_empty = kind == "none" or (kind == "found" and is_without)
        self.category = category
        self.k = k
        self.temperature = temperature
        self.scale = scale
        self._from_hit = lru_cache(maxsize=k)(from_hit)  # one reference for all photographs is read once

    def find(self, lq: Tensor, path: Path) -> list[Reference]:
        """The references of the photograph `lq`, (3, h, w) in [0, 1], at `path`; best first, never itself."""
        from rasr.retrieval import Query

        if self.is_empty:
            return []
        if self.kind == "self":
            size = (lq.shape[-2] * self.scale, lq.shape[-1] * self.scale)
            return [Reference("self", lambda: resize_bicubic(lq[None], size)[0])]
        hits = self.policy.choose(Query(lq, path, self.category), self.retriever, self.k)
        return weigh([self._from_hit(hit) for hit in hits], self.temperature)


def weigh(references: Sequence[Reference], temperature: float = 1.0) -> list[Reference]:
    """The same references with shares from their scores (ReFIR, appendix A)."""
    from rasr.retrieval import softmax_weights

    if not references:
        return []
    shares = softmax_weights([reference.score or 0.0 for reference in references], temperature)
    return [replace(reference, weight=float(a)) for reference, a in zip(references, shares, strict=True)]


def from_hit(hit: Hit) -> Reference:
    """A hit of the retriever as a reference; its shares among several are not set yet."""
    box = "" if hit.box is None else "-" + "-".join(map(str, hit.box))
    read = lru_cache(maxsize=1)(hit.read)
    return Reference(hit.id, read, hit.prompt, hit.score, key=hit.content_hash + box)
