"""The reference index: vectors and what belongs to them, behind one interface for all engines.

- `edge`: Qdrant's engine inside this process (`qdrant-edge-py`), approximate search in a folder; the default.
  One process at a time, readers too.
- `flat`: exact search over a memory-mapped float16 matrix in a folder; many readers, read-only media.
- `server`: a Qdrant server or cluster, named by its URL (http://host:6333/collection).

`create` and `open` give the right class. An index is complete when its writer closes it; until then, and
after a writer was killed, `open` refuses it. This file knows nothing of images or encoders.
"""

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from rasr.errors import RasrError
from rasr.retrieval.engines.registry import get_engine
from rasr.retrieval.meta import META_FILE, IndexMeta, is_url, read_meta
from rasr.retrieval.payload import Payload

SCORE_DECIMALS = 6  # below that, scores differ with the order of summation: equal images must tie exactly
FILTER_FIELDS = ("category",)


class ReferenceIndex(ABC):
    """Ids, vectors and payloads, searched by cosine similarity. Use `create` or `open`.

    An engine is one class that fills in the abstract methods, and `make` and `load`; the
    simplest way is `rasr.retrieval.engines.folder.FolderIndex`. One from elsewhere is registered
    (`rasr.retrieval.engines.registry`).

    Attributes:
        location: path or URL, as given.
    """

    engine_name: str = ""
    """Under which the registry knows it."""

    def __init__(self, location: str, meta: IndexMeta) -> None:
        self.location = location
        self._meta = meta

    @staticmethod
    def create(
        location: str | Path,
        dim: int,
        encoder_name: str,
        encoder_version: str,
        encoder_settings: Mapping[str, Any] | None = None,
        *,
        engine: str = "edge",
        patches: Mapping[str, int] | None = None,
        quantize: bool = False,
    ) -> "ReferenceIndex":
        """Make an empty index, open for writing; nothing may lie there yet.

        Args:
            location: a folder, or the URL of a collection on a Qdrant server.
            dim: length of the vectors.
            encoder_name: of the encoder that makes them.
            encoder_version: likewise; vectors of another version are not comparable.
            encoder_settings: JSON-able, see `rasr.retrieval.encoder_from_settings`.
            engine: "edge", "flat" or a registered one for a folder; a URL is always a server.
            patches: size and overlap of the crops, if entries are crops.
            quantize: search int8 copies of the vectors and keep float16 on disk, for millions of entries;
                the hits are scored with the float16. Not for `flat`.
        """
        engine = "server" if is_url(location) else engine
        if quantize and engine == "flat":
            raise RasrError("quantize=true is not for engine=flat, which is exact; give engine=edge")
        settings = json.loads(json.dumps(dict(encoder_settings or {})))  # as it will be read back
        encoder = {"name": encoder_name, "version": encoder_version, "settings": settings}
        meta = IndexMeta(engine, dim, encoder, None if patches is None else dict(patches), quantize)
        return get_engine(engine).make(_plain(location), meta)

    @staticmethod
    def open(location: str | Path, *, allow_unfinished: bool = False) -> "ReferenceIndex":
        """Open an index for reading and writing; damage is an error here, not a wrong answer later.

        Args:
            location: a folder or a URL.
            allow_unfinished: take what an interrupted writer left, to go on with it as the writer.
        """
        engine = "server" if is_url(location) else read_meta(Path(location)).engine
        index = get_engine(engine).load(_plain(location), allow_unfinished)
        if index.state == "writing":
            index._begin_writing()
        return index

    @staticmethod
    def exists(location: str | Path) -> bool:
        """Tell whether there is an index, of whatever state."""
        if is_url(location):
            return get_engine("server").is_there(_plain(location))
        return (Path(location) / META_FILE).exists()

    @property
    def engine(self) -> str:
        return self._meta.engine

    @property
    def state(self) -> str:
        """`writing` from the first change on, `complete` after `close`."""
        return self._meta.state

    @property
    def dim(self) -> int:
        return self._meta.dim

    @property
    def encoder_name(self) -> str:
        return self._meta.encoder["name"]

    @property
    def encoder_version(self) -> str:
        return self._meta.encoder["version"]

    @property
    def encoder_settings(self) -> dict[str, Any]:
        return dict(self._meta.encoder["settings"])

    @property
    def patches(self) -> dict[str, int] | None:
        """Size and overlap of the crops; None if entries are whole images."""
        return None if self._meta.patches is None else dict(self._meta.patches)

    @property
    def ids(self) -> list[str]:
        return [entry_id for entry_id, _ in self.entries()]

    def add(self, ids: Sequence[str], vectors: np.ndarray, payloads: Sequence[Payload]) -> None:
        """Add entries, or replace those whose id is known; a later kill does not lose them.

        Args:
            ids: unique.
            vectors: (len(ids), dim), L2-normalised.
            payloads: one per id.
        """
        vectors = self._check(vectors)
        if not len(ids) == len(set(ids)) == len(vectors) == len(payloads):
            raise ValueError(
                f"{len(ids)} ids, {len(vectors)} vectors, {len(payloads)} payloads, or an id twice"
            )
        if len(ids) == 0:
            return
        self._begin_writing()
        stored = [
            replace(payload, path=self._stored_path(payload.path), image=payload.image or entry_id)
            for entry_id, payload in zip(ids, payloads, strict=True)
        ]
        self._add(ids, vectors, stored)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete entries and return how many there were; unknown ids are passed over."""
        known = list(self._known(list(ids)))
        if known:
            self._begin_writing()
            self._delete(known)
        return len(known)

    def search(
        self, vectors: np.ndarray, k: int, filter: Mapping[str, str] | None = None
    ) -> tuple[list[list[str]], list[np.ndarray]]:
        """Find the nearest entries by cosine.

        Args:
            vectors: (Q, dim) queries, L2-normalised.
            k: how many are wanted.
            filter: {"category": value} to search in one category only.

        Returns:
            Per query its ids, best first, equal scores in the order of ids; and their scores, float32. Fewer
            than k where fewer entries are allowed.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if unknown := set(filter or {}) - set(FILTER_FIELDS):
            raise ValueError(f"cannot filter by {unknown}, only by {FILTER_FIELDS}")
        found = self._search(self._check(vectors), k, dict(filter or {}))
        hits = [sorted(((-round(score, SCORE_DECIMALS), i) for i, score in row)) for row in found]
        ids = [[entry_id for _, entry_id in row] for row in hits]
        return ids, [np.array([-score for score, _ in row], dtype=np.float32) for row in hits]

    def payload(self, entry_id: str) -> Payload:
        return self.payloads([entry_id])[0]

    def payloads(self, ids: Sequence[str]) -> list[Payload]:
        """Return what is known of each id, with absolute paths; an unknown id is a KeyError."""
        return [self._opened(payload) for payload in self._payloads(list(ids))]

    def entries(self) -> Iterator[tuple[str, Payload]]:
        """Go through all ids and payloads, in the engine's order."""
        for entry_id, payload in self._entries():
            yield entry_id, self._opened(payload)

    def categories(self) -> dict[str, int]:
        """Return how many entries each category has; "" is none."""
        return dict(sorted(self._categories().items()))

    def close(self) -> None:
        """Complete what was written and let others use the index; it must not be used after that."""
        if self._meta.state == "writing" and self._is_open():
            self._complete()
        self._release()

    def abandon(self) -> None:
        """Let go without completing: the index stays unfinished, as after a kill."""
        self._release()

    def __enter__(self) -> "ReferenceIndex":
        return self

    def __exit__(self, error: object, *_: object) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()

    @abstractmethod
    def optimize(self) -> None:
        """Prepare what was added for fast search; before that it is found too, only slower."""

    @abstractmethod
    def check_storage(self) -> None:
        """Read every byte of the index's files, where it has any; damage is a RasrError."""

    @abstractmethod
    def count(self) -> int:
        """Return the number of entries."""

    @abstractmethod
    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        """Return (len(ids), dim) float32; an unknown id is a KeyError."""

    @abstractmethod
    def _known(self, ids: list[str]) -> Iterable[str]: ...

    @abstractmethod
    def _add(self, ids: Sequence[str], vectors: np.ndarray, payloads: list[Payload]) -> None: ...

    @abstractmethod
    def _delete(self, ids: list[str]) -> None: ...

    @abstractmethod
    def _search(
        self, vectors: np.ndarray, k: int, filter: dict[str, str]
    ) -> list[list[tuple[str, float]]]: ...

    @abstractmethod
    def _payloads(self, ids: list[str]) -> list[Payload]: ...

    @abstractmethod
    def _entries(self) -> Iterator[tuple[str, Payload]]: ...

    @abstractmethod
    def _categories(self) -> dict[str, int]: ...

    @abstractmethod
    def _is_open(self) -> bool: ...

    @abstractmethod
    def _begin_writing(self) -> None:
        """Become the writer, and put the index into the state `writing` before anything else changes."""

    @abstractmethod
    def _complete(self) -> None:
        """Put the index into the state `complete`."""

    @abstractmethod
    def _release(self) -> None: ...

    def _stored_path(self, path: str) -> str:
        return path

    def _opened(self, payload: Payload) -> Payload:
        return payload

    def _check(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"expected vectors of shape (N, {self.dim}), got {vectors.shape}")
        norms = np.linalg.norm(vectors, axis=1)
        if not np.allclose(norms, 1, atol=1e-3):  # NaN fails too
            raise ValueError(f"vectors are not L2-normalised: norms from {norms.min()} to {norms.max()}")
        return vectors


def _plain(location: str | Path) -> str:
    return str(location) if is_url(location) else os.fspath(location)
