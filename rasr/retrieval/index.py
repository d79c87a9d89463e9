"""The reference index: vectors and what belongs to them, in a directory.

One engine so far, `flat`: exact cosine search over a memory-mapped float32 matrix. The directory holds

    meta.json           format, encoder, number of committed entries; replaced atomically
    vectors-G.f32       the rows of generation G, appended
    entries-G.jsonl     one JSON object per row, appended
    lock                held by the process that writes

Data are appended and flushed first, then `meta.json` names the new length. Whatever lies beyond that length
is the rest of an interrupted write: it is not read, and the next write overwrites it. Deleting writes a new
generation. Many processes may read; one may write. This file knows nothing of images or encoders.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rasr.errors import RasrError
from rasr.retrieval.storage import (
    FORMAT,
    Payload,
    append,
    data_files,
    flush,
    format_entries,
    is_leftover,
    lock,
    read_entries,
    read_meta,
    remove_old_data,
    write_meta,
)

_BLOCK_ROWS = 65536
_SCORE_DECIMALS = 6  # below that, scores differ with the order of summation: equal images must tie exactly


class ReferenceIndex:
    """Ids, vectors and payloads on disk, searched by cosine similarity. Use `create` or `open`."""

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self._meta = meta
        self._lock_file: BinaryIO | None = None
        self._load()

    @classmethod
    def create(
        cls,
        path: str | Path,
        dim: int,
        encoder_name: str,
        encoder_version: str,
        encoder_settings: Mapping[str, Any] | None = None,
    ) -> "ReferenceIndex":
        """Make an empty index; `path` must not hold one, nor anything else."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(not is_leftover(name) for name in os.listdir(path))):
            raise RasrError(f"{path}: exists already; choose another index= or delete it")
        path.mkdir(parents=True, exist_ok=True)
        encoder = {"name": encoder_name, "version": encoder_version, "settings": dict(encoder_settings or {})}
        meta = {"format": FORMAT, "engine": "flat", "dim": dim, "encoder": encoder}
        meta |= {"generation": 0, "count": 0, "entries_bytes": 0}
        for file in data_files(path, 0):
            file.write_bytes(b"")
        write_meta(path, meta)
        return cls(path, meta)

    @classmethod
    def open(cls, path: str | Path) -> "ReferenceIndex":
        """Open an index for reading and writing; damage is an error here, not a wrong answer later."""
        path = Path(path)
        return cls(path, read_meta(path))

    @property
    def dim(self) -> int:
        return self._meta["dim"]

    @property
    def encoder_name(self) -> str:
        return self._meta["encoder"]["name"]

    @property
    def encoder_version(self) -> str:
        return self._meta["encoder"]["version"]

    @property
    def encoder_settings(self) -> dict[str, Any]:
        return dict(self._meta["encoder"]["settings"])

    @property
    def ids(self) -> list[str]:
        return list(self._ids)

    def __contains__(self, entry_id: str) -> bool:
        return entry_id in self._row

    def count(self) -> int:
        return len(self._ids)

    def payload(self, entry_id: str) -> Payload:
        stored = self._payloads[self._row[entry_id]]
        return replace(stored, path=os.path.normpath(self.path.resolve() / stored.path))

    def vectors(self, ids: Iterable[str]) -> np.ndarray:
        """Return (len(ids), dim) float32."""
        rows = [self._row[entry_id] for entry_id in ids]
        return np.array(self._matrix[rows], dtype=np.float32).reshape(-1, self.dim)

    def values(self, field: str) -> dict[Any, list[str]]:
        """Return which ids have which value of a payload field, for instance of "category"."""
        return {value: [self._ids[row] for row in rows] for value, rows in self._groups(field).items()}

    def add(self, ids: Sequence[str], vectors: np.ndarray, payloads: Sequence[Payload]) -> None:
        """Add entries, or replace those whose id is known; they are on disk when this returns.

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
        self._begin_writing()
        self.delete(ids)
        root = self.path.resolve()
        stored = [replace(payload, path=_relative(payload.path, root)) for payload in payloads]
        text = format_entries(zip(ids, stored, strict=True))
        meta = self._meta
        vector_file, entry_file = data_files(self.path, meta["generation"])
        append(vector_file, meta["count"] * self.dim * 4, vectors.tobytes())
        append(entry_file, meta["entries_bytes"], text)
        size = meta["entries_bytes"] + len(text)
        self._meta = {**meta, "count": meta["count"] + len(ids), "entries_bytes": size}
        write_meta(self.path, self._meta)
        self._extend(ids, stored)

    def delete(self, ids: Iterable[str]) -> int:
        """Delete entries and return how many there were; unknown ids are passed over."""
        gone = {self._row[entry_id] for entry_id in ids if entry_id in self._row}
        if not gone:
            return 0
        self._begin_writing()
        generation = self._meta["generation"] + 1
        vector_file, entry_file = data_files(self.path, generation)
        kept = np.array([row for row in range(self.count()) if row not in gone], dtype=np.int64)
        with vector_file.open("wb") as file:
            for start in range(0, len(kept), _BLOCK_ROWS):
                file.write(np.ascontiguousarray(self._matrix[kept[start : start + _BLOCK_ROWS]]).tobytes())
            flush(file)
        text = format_entries((self._ids[row], self._payloads[row]) for row in kept)
        entry_file.write_bytes(b"")
        append(entry_file, 0, text)
        meta = {"generation": generation, "count": len(kept), "entries_bytes": len(text)}
        self._meta = {**self._meta, **meta}
        write_meta(self.path, self._meta)
        self._load()
        remove_old_data(self.path, generation)
        return len(gone)

    def search(
        self,
        vectors: np.ndarray,
        k: int,
        filter: Mapping[str, Any] | None = None,
        *,
        exclude_ids: Collection[str] = (),
        exclude_hashes: Collection[str] = (),
    ) -> tuple[list[list[str]], np.ndarray]:
        """Find the nearest entries by cosine.

        Args:
            vectors: (Q, dim) queries, L2-normalised.
            k: how many are wanted.
            filter: payload fields and the value that each must have.
            exclude_ids: entries that must not be found.
            exclude_hashes: content hashes that must not be found.

        Returns:
            Per query its ids, best first, equal scores in the order of ids; and their scores, (Q, M) float32.
            M is k, or less where fewer entries are allowed.
        """
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        vectors = self._check(vectors)
        allowed = np.ones(self.count(), dtype=bool)
        for field, value in (filter or {}).items():
            has_value = np.zeros_like(allowed)
            has_value[self._groups(field).get(value, [])] = True
            allowed &= has_value
        allowed[[self._row[entry_id] for entry_id in exclude_ids if entry_id in self._row]] = False
        for content_hash in exclude_hashes:
            allowed[self._groups("content_hash").get(content_hash, [])] = False

        found = min(k, int(allowed.sum()))
        if found == 0:
            return [[] for _ in vectors], np.zeros((len(vectors), 0), dtype=np.float32)
        blocks = range(0, self.count(), _BLOCK_ROWS)
        scores = np.concatenate([vectors @ self._matrix[at : at + _BLOCK_ROWS].T for at in blocks], axis=1)
        scores = np.where(allowed, np.round(scores, _SCORE_DECIMALS), -np.inf)
        best = [self._best_rows(row_scores, found) for row_scores in scores]
        ids = [[self._ids[row] for row in rows] for rows in best]
        return ids, np.take_along_axis(scores, np.array(best), axis=1).astype(np.float32)

    def close(self) -> None:
        """Let other processes write; the index can still be read."""
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None

    def __enter__(self) -> "ReferenceIndex":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _best_rows(self, scores: np.ndarray, found: int) -> list[int]:
        # Everything at least as good as the last place, so that a tie there is decided by id too.
        last = np.partition(scores, len(scores) - found)[len(scores) - found]
        candidates = np.flatnonzero(scores >= last)
        return sorted(candidates.tolist(), key=lambda row: (-scores[row], self._ids[row]))[:found]

    def _groups(self, field: str) -> dict[Any, list[int]]:
        """Return the rows of each value of a payload field; made on first use."""
        if field not in self._grouped:
            groups: dict[Any, list[int]] = defaultdict(list)
            for row, payload in enumerate(self._payloads):
                groups[getattr(payload, field)].append(row)
            self._grouped[field] = dict(groups)
        return self._grouped[field]

    def _check(self, vectors: np.ndarray) -> np.ndarray:
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or vectors.shape[1] != self.dim:
            raise ValueError(f"expected vectors of shape (N, {self.dim}), got {vectors.shape}")
        norms = np.linalg.norm(vectors, axis=1)
        if not np.allclose(norms, 1, atol=1e-3):  # NaN fails too
            raise ValueError(f"vectors are not L2-normalised: norms from {norms.min()} to {norms.max()}")
        return vectors

    def _load(self) -> None:
        """Read everything that is committed."""
        damage = None
        self._ids, self._payloads, self._row = [], [], {}
        try:
            _, entry_file = data_files(self.path, self._meta["generation"])
            self._extend(*read_entries(entry_file, self._meta["entries_bytes"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            damage = error
        if damage is not None or self.count() != self._meta["count"]:
            raise RasrError(
                f"{self.path}: the index is damaged; delete the folder and build it again"
            ) from damage

    def _extend(self, ids: Sequence[str], payloads: Sequence[Payload]) -> None:
        """Take committed rows into memory."""
        self._row.update((entry_id, row) for row, entry_id in enumerate(ids, start=self.count()))
        self._ids.extend(ids)
        self._payloads.extend(payloads)
        self._grouped: dict[str, dict[Any, list[int]]] = {}
        vector_file, _ = data_files(self.path, self._meta["generation"])
        shape = (self._meta["count"], self._meta["dim"])
        # An empty file cannot be mapped.
        self._matrix = np.memmap(vector_file, np.float32, "r", shape=shape) if shape[0] else np.zeros(shape)

    def _begin_writing(self) -> None:
        if self._lock_file is not None:
            return
        lock_file = lock(self.path)
        if read_meta(self.path) != self._meta:
            lock_file.close()
            raise RasrError(
                f"{self.path}: another process changed this index meanwhile; run the command again"
            )
        self._lock_file = lock_file


def _relative(path: str, root: Path) -> str:
    absolute = os.path.abspath(path)
    try:
        return os.path.relpath(absolute, root)
    except ValueError:  # another drive
        return absolute
