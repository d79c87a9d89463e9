"""The engine `flat`: exact cosine search over a memory-mapped float16 matrix.

    meta.json           encoder, state, number of entries; replaced atomically
    vectors-G.f16       the rows of generation G, appended
    entries-G.jsonl     one JSON object per row, appended
    lock                held by the process that writes

Data are appended and flushed first, then `meta.json` names the new length. Whatever lies beyond that length
is the rest of an interrupted write: it is not read, and the next write overwrites it. Deleting writes a new
generation. Many processes may read; one may write, and readers keep the state that they opened.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from rasr.errors import RasrError
from rasr.retrieval.engines.base import SCORE_DECIMALS
from rasr.retrieval.engines.folder import FolderIndex
from rasr.retrieval.meta import IndexMeta, damaged, flush, read_meta
from rasr.retrieval.payload import Payload

_BLOCK_ROWS = 8192  # copied together
_BLOCK_QUERIES = 64  # searched together
# A float16 score differs from the float32 one by up to 2^-11 for the rounding of the query, and of itself;
# candidates this close to the last place are scored again, so that the result is exact.
_ROUGHNESS = 4e-3


class FlatIndex(FolderIndex):
    """See the module's text."""

    engine_name = "flat"

    PARTS = ("vectors-*.f16", "entries-*.jsonl")

    def __init__(self, location: str, meta: IndexMeta) -> None:
        super().__init__(location, meta)
        self._lock_file: BinaryIO | None = None

    def count(self) -> int:
        return len(self._lines)

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        rows = [self._rows[entry_id] for entry_id in ids]
        return self._matrix[rows].astype(np.float32).reshape(-1, self.dim)

    def optimize(self) -> None:
        """Nothing to prepare: every search reads all vectors."""

    def _known(self, ids: list[str]) -> Iterable[str]:
        return [entry_id for entry_id in ids if entry_id in self._rows]

    def _payloads(self, ids: list[str]) -> list[Payload]:
        return [self._entry(self._rows[entry_id])[1] for entry_id in ids]

    def _entries(self) -> Iterator[tuple[str, Payload]]:
        return map(self._entry, range(len(self._lines)))

    def _categories(self) -> dict[str, int]:
        return dict(Counter(self._categories_of_rows))

    def _add(self, ids: Sequence[str], vectors: np.ndarray, payloads: list[Payload]) -> None:
        self._delete([entry_id for entry_id in ids if entry_id in self._rows])
        storage, halves = self._meta.storage, vectors.astype(np.float16)
        lines = [_format_entry(*entry) for entry in zip(ids, payloads, strict=True)]
        text = b"".join(lines)
        vector_file, entry_file = self._data_files()
        append(vector_file, self.count() * self.dim * 2, halves.tobytes())
        append(entry_file, storage["entries_bytes"], text)
        self._update_meta(
            count=self.count() + len(ids),
            storage={**storage, "entries_bytes": storage["entries_bytes"] + len(text)},
        )
        self._extend(ids, lines)

    def _delete(self, ids: list[str]) -> None:
        gone = {self._rows[entry_id] for entry_id in ids}
        if not gone:
            return
        old_files = self._data_files()
        kept = np.array([row for row in range(self.count()) if row not in gone], dtype=np.int64)
        text = b"".join(self._lines[row] for row in kept)
        generation = self._meta.storage["generation"] + 1
        vector_file, entry_file = self._data_files(generation)
        with vector_file.open("wb") as file:
            for start in range(0, len(kept), _BLOCK_ROWS):
                file.write(self._matrix[kept[start : start + _BLOCK_ROWS]].tobytes())
            flush(file)
        entry_file.write_bytes(b"")
        append(entry_file, 0, text)
        self._update_meta(count=len(kept), storage={"generation": generation, "entries_bytes": len(text)})
        self._load_storage()
        for file in old_files:
            file.unlink(missing_ok=True)

    def _search(self, vectors: np.ndarray, k: int, filter: dict[str, str]) -> list[list[tuple[str, float]]]:
        rows = None
        if filter:
            rows = np.flatnonzero(self._categories_of_rows == filter["category"])
        matrix = torch.from_numpy(self._matrix if rows is None else self._matrix[rows])
        found = min(k, len(matrix))
        if found == 0:
            return [[] for _ in vectors]
        hits = []
        for start in range(0, len(vectors), _BLOCK_QUERIES):
            queries = torch.from_numpy(vectors[start : start + _BLOCK_QUERIES])
            rough = queries.half() @ matrix.T  # several times as fast as float32, and off by 1e-3 at most
            for query, row_scores in zip(queries, rough.float(), strict=True):
                last = row_scores.topk(found).values[-1]
                places = torch.nonzero(row_scores >= last - _ROUGHNESS)[:, 0]
                exact = (matrix[places].float() @ query).numpy().round(SCORE_DECIMALS)
                chosen = places.numpy() if rows is None else rows[places.numpy()]
                hits.append(self._best(exact, chosen, found))
        return hits

    def _best(self, scores: np.ndarray, rows: np.ndarray, found: int) -> list[tuple[str, float]]:
        # Everything at least as good as the last place, so that a tie there is decided by id.
        last = np.partition(scores, len(scores) - found)[len(scores) - found]
        places = np.flatnonzero(scores >= last)
        candidates = [(self._entry(rows[n])[0], float(scores[n])) for n in places]
        return sorted(candidates, key=lambda hit: (-hit[1], hit[0]))[:found]

    def _make_storage(self) -> None:
        self._meta = replace(self._meta, storage={"generation": 0, "entries_bytes": 0})
        for file in self._data_files():
            file.write_bytes(b"")
        self._load_storage()

    def _load_storage(self) -> None:
        """Read everything that is committed."""
        self._lines: list[bytes] = []
        self._known_rows: dict[str, int] | None = None
        try:
            vector_file, entry_file = self._data_files()
            size, length = self._meta.storage["entries_bytes"], self._meta.count * self.dim * 2
            if self._meta.state == "complete" and vector_file.stat().st_size != length:
                raise damaged(self.location, f"its vectors are not of length {self.dim}")
            with entry_file.open("rb") as file:
                lines = file.read(size).splitlines(keepends=True)
            if len(lines) != self._meta.count or sum(map(len, lines)) != size:
                raise damaged(self.location, f"{len(lines)} entries instead of {self._meta.count}")
            self._extend([], lines)
        except RasrError:
            raise
        except (OSError, ValueError, KeyError) as error:
            raise damaged(self.location, "its data cannot be read") from error

    def _entry(self, row: int) -> tuple[str, Payload]:
        record = self._record(row)
        return record.pop("id"), Payload.from_dict(record)

    def _column(self, key: str) -> list[str]:
        return [self._record(row)[key] for row in range(len(self._lines))]

    def _record(self, row: int) -> dict[str, Any]:
        """A line of the file of entries; read only when wanted, so that an index opens at once."""
        try:
            return json.loads(self._lines[row])
        except ValueError as error:
            raise damaged(self.location, f"its entry {row} cannot be read") from error

    @property
    def _rows(self) -> dict[str, int]:
        """The row of each id."""
        if self._known_rows is None:
            self._known_rows = {entry_id: row for row, entry_id in enumerate(self._column("id"))}
        return self._known_rows

    @property
    def _categories_of_rows(self) -> np.ndarray:
        if self._row_categories is None:
            self._row_categories = np.array(self._column("category"), dtype=object)
        return self._row_categories

    def _extend(self, ids: Sequence[str], lines: Sequence[bytes]) -> None:
        """Take committed rows into memory."""
        if self._known_rows is not None:
            self._known_rows.update((entry_id, row) for row, entry_id in enumerate(ids, start=self.count()))
        self._lines.extend(lines)
        self._row_categories: np.ndarray | None = None
        shape = (self._meta.count, self.dim)
        # Copy on write: torch wants a writable array. An empty file cannot be mapped.
        file = self._data_files()[0]
        self._matrix = (
            np.memmap(file, np.float16, "c", shape=shape) if shape[0] else np.zeros(shape, np.float16)
        )

    def _data_files(self, generation: int | None = None) -> tuple[Path, Path]:
        number = self._meta.storage["generation"] if generation is None else generation
        return self.path / f"vectors-{number}.f16", self.path / f"entries-{number}.jsonl"

    def _files(self) -> list[Path]:
        return [file for file in self._data_files() if file.is_file()]

    def _is_open(self) -> bool:
        return self._lock_file is not None

    def _begin_writing(self) -> None:
        if self._lock_file is None:
            lock_file = lock(self.path)
            if read_meta(self.path) != self._meta:
                lock_file.close()
                raise RasrError(
                    f"{self.path}: another process changed this index meanwhile; run the command again"
                )
            self._lock_file = lock_file
        if self._meta.state != "writing":
            self._update_meta(state="writing", files={})

    def _complete(self) -> None:
        for file in [found for pattern in self.PARTS for found in self.path.glob(pattern)]:
            if file not in self._data_files():  # generations of interrupted runs
                file.unlink(missing_ok=True)
        vector_file, entry_file = self._data_files()
        append(vector_file, self.count() * self.dim * 2, b"")  # cuts off what an interrupted write left
        append(entry_file, self._meta.storage["entries_bytes"], b"")
        super()._complete()

    def _release(self) -> None:
        if self._lock_file is not None:
            self._lock_file.close()
            self._lock_file = None


def append(path: Path, offset: int, data: bytes) -> None:
    """Write `data` at `offset`, and cut off what lies behind it."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.truncate()
        file.write(data)
        flush(file)


def lock(path: Path) -> BinaryIO:
    """Become the one process that writes; closing the returned file ends it."""
    import fcntl  # not on Windows, where an index can be read all the same

    lock_file = (path / "lock").open("wb")
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock_file.close()
        raise RasrError(f"{path}: another process is writing this index; wait for it to end") from error
    return lock_file


def _format_entry(entry_id: str, payload: Payload) -> bytes:
    return f"{json.dumps({'id': entry_id, **payload.to_dict()})}\n".encode()
