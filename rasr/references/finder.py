"""Which references a photograph gets, by any source, and the kinds of ReFIR's Table 6."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from rasr.checks import check_number_or_none, check_whole
from rasr.errors import RasrError
from rasr.image_io import read_image
from rasr.image_ops import resize_bicubic
from rasr.references.listed import Listed
from rasr.references.reference import Reference, from_hit, weigh
from rasr.retrieval import Always, Given, Query, RandomReference, Retriever

KINDS = ("found", "none", "self", "random")


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
        if kind not in KINDS:
            raise RasrError(f"reference_kind={kind!r} is unknown; give one of {', '.join(KINDS)}")
        if kind == "random" and retriever is None:
            raise RasrError("reference_kind=random draws from an index; give index=")
        check_whole("references", k, least=1)
        if not isinstance(temperature, float | int) or temperature <= 0:
            raise RasrError(f"temperature={temperature}: give a number above 0")
        check_number_or_none("max_score", max_score)
        self.kind = kind
        self.has_scores = retriever is not None
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
        if self.is_empty:
            return []
        if self.kind == "self":
            size = (lq.shape[-2] * self.scale, lq.shape[-1] * self.scale)
            return [Reference("self", lambda: resize_bicubic(lq[None], size)[0])]
        hits = self.policy.choose(Query(lq, path, self.category), self.retriever, self.k)
        return weigh([self._from_hit(hit) for hit in hits], self.temperature)
