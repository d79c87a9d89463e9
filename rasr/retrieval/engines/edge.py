"""The engine `edge`: Qdrant's own engine inside this process (`qdrant-edge-py`).

    meta.json       encoder, state, fingerprints of the files; replaced atomically
    shard/          Qdrant's: segments and a write-ahead log, the data format of its server

Every change goes through the write-ahead log: a killed process loses nothing that `add` returned from. The
graph for approximate search (HNSW) is built by `optimize`; entries that came later are searched exactly. The
engine locks its folder to one process, readers too: several at a time want `flat` or a server.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as qdrant

from rasr.errors import RasrError
from rasr.retrieval.engines import points as layout
from rasr.retrieval.engines.folder import FolderIndex
from rasr.retrieval.meta import IndexMeta, damaged, fingerprint, read_meta
from rasr.retrieval.payload import Payload

_PAGE = 4096
_SEGMENT_KB = 20_000_000  # one graph for all: searching several costs one search each


class EdgeIndex(FolderIndex):
    """See the module's text."""

    engine_name = "edge"

    PARTS = ("shard",)

    def __init__(self, location: str, meta: IndexMeta) -> None:
        super().__init__(location, meta)
        self._shard: Any = None
        rescore = qdrant.QuantizationSearchParams(rescore=True, oversampling=layout.OVERSAMPLING)
        self._search_params = qdrant.SearchParams(
            hnsw_ef=layout.HNSW_EF_SEARCH, quantization=rescore if meta.quantize else None
        )

    def count(self) -> int:
        return self._shard.count(qdrant.CountRequest(exact=True))

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        records = self._retrieve(ids, with_vector=True)
        vectors = [record.vector for record in records]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dim)

    def optimize(self) -> None:
        """Build the graph for approximate search; 25 s for 85,000 entries on two cores."""
        self._begin_writing()
        self._shard.optimize()

    def _known(self, ids: list[str]) -> Iterable[str]:
        for start in range(0, len(ids), _PAGE):
            page = {layout.point_id(entry_id): entry_id for entry_id in ids[start : start + _PAGE]}
            for record in self._shard.retrieve(list(page), with_payload=False, with_vector=False):
                yield page[str(record.id)]

    def _add(self, ids: Sequence[str], vectors: np.ndarray, payloads: list[Payload]) -> None:
        points = [
            qdrant.Point(
                layout.point_id(entry_id),
                vector.tolist(),
                layout.to_point_payload(entry_id, payload, self._meta),
            )
            for entry_id, vector, payload in zip(ids, vectors, payloads, strict=True)
        ]
        self._shard.update(qdrant.UpdateOperation.upsert_points(points))

    def _delete(self, ids: list[str]) -> None:
        self._shard.update(
            qdrant.UpdateOperation.delete_points([layout.point_id(entry_id) for entry_id in ids])
        )

    def _search(self, vectors: np.ndarray, k: int, filter: dict[str, str]) -> list[list[tuple[str, float]]]:
        conditions = [qdrant.FieldCondition(key, match=qdrant.MatchValue(filter[key])) for key in filter]
        requests = [
            qdrant.QueryRequest(
                limit=k,
                query=qdrant.Query.Nearest(vector.tolist()),
                filter=qdrant.Filter(must=conditions) if conditions else None,
                params=self._search_params,
                with_payload=["id"],
            )
            for vector in vectors
        ]
        # One by one: a batch of the engine runs on one thread, and a query is what users wait for.
        found = [self._shard.query(request) for request in requests]
        return [[(point.payload["id"], point.score) for point in points] for points in found]

    def _payloads(self, ids: list[str]) -> list[Payload]:
        return [
            layout.from_point_payload(record.payload)[1] for record in self._retrieve(ids, with_vector=False)
        ]

    def _entries(self) -> Iterator[tuple[str, Payload]]:
        offset = None
        while True:
            request = qdrant.ScrollRequest(offset=offset, limit=_PAGE, with_payload=True, with_vector=False)
            records, offset = self._shard.scroll(request)
            yield from (layout.from_point_payload(record.payload) for record in records)
            if offset is None:
                return

    def _categories(self) -> dict[str, int]:
        request = qdrant.FacetRequest("category", limit=self.count() + 1, exact=True)
        return {hit.value: hit.count for hit in self._shard.facet(request).hits}

    def _retrieve(self, ids: Sequence[str], *, with_vector: bool) -> list[Any]:
        points = [layout.point_id(entry_id) for entry_id in ids]
        records = {}
        for start in range(0, len(points), _PAGE):
            page = points[start : start + _PAGE]
            for record in self._shard.retrieve(page, with_payload=not with_vector, with_vector=with_vector):
                records[str(record.id)] = record
        for entry_id, point in zip(ids, points, strict=True):
            if point not in records:
                raise KeyError(entry_id)
        return [records[point] for point in points]

    def _make_storage(self) -> None:
        folder = self.path / "shard"
        folder.mkdir()
        self._shard = qdrant.EdgeShard.create(str(folder), _config(self._meta))
        create = qdrant.UpdateOperation.create_field_index("category", qdrant.PayloadSchemaType.Keyword)
        self._shard.update(create)

    def _load_storage(self) -> None:
        if not (self.path / "shard").is_dir():
            raise damaged(self.location, "its folder shard is missing")
        for file in self.path.glob("shard/segments/*/vector_storage/quantized.data"):
            _read_through(file)
        self._open_shard()
        if read_meta(self.path) != self._meta:
            raise RasrError(f"{self.path}: another process just changed this index; run the command again")
        first = qdrant.ScrollRequest(limit=1, with_payload=False, with_vector=True)
        if any(len(record.vector) != self.dim for record in self._shard.scroll(first)[0]):
            raise damaged(self.location, f"its vectors are not of length {self.dim}")
        if not self._meta.quantize:
            for file in self.path.glob("shard/segments/*/vector_storage/matrix.dat"):
                _read_ahead(file)

    def _open_shard(self) -> None:
        try:
            self._shard = qdrant.EdgeShard.load(str(self.path / "shard"))
        except BaseException as error:  # a panic of the engine is no Exception
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            if "WouldBlock" in str(error):
                raise RasrError(
                    f"{self.path}: another process has this index open, and engine=edge admits one only; "
                    "wait for it, or copy it (python index.py copy) to engine=flat or to a Qdrant server"
                ) from error
            raise damaged(self.location, " ".join(str(error).split())) from error

    def _files(self) -> list[Path]:
        # Journals come and go, and the write-ahead log is empty of meaning once all is in the segments.
        files = super()._files()
        return [file for file in files if "journal" not in file.name and file.parent.name != "wal"]

    def _is_open(self) -> bool:
        return self._shard is not None

    def _begin_writing(self) -> None:
        if self._meta.state != "writing":
            self._update_meta(state="writing", files={})

    def _complete(self) -> None:
        count = self.count()
        # The engine writes its last bytes when it closes, and tidies up when it opens again: after that its
        # files stay as they are until the next change.
        self._release()
        self._open_shard()
        self._release()
        self._update_meta(state="complete", count=count, files=fingerprint(self.path, self._files()))

    def _release(self) -> None:
        if self._shard is not None:
            self._shard.flush()
            self._shard.close()
            self._shard = None


def _read_through(file: Path) -> None:
    """Bring the file into the system's cache, from which the engine copies it page by page.

    The engine forgets the file whenever it closes, and reading it alone takes 25 s of system time per GB, ten
    times as much.
    """
    with file.open("rb", buffering=0) as stream:
        while stream.read(1 << 20):
            pass


def _read_ahead(file: Path) -> None:
    """Ask for the file in one sweep; page by page, as the engine reads it, a cold disk takes 10 s per GB."""
    if hasattr(os, "posix_fadvise"):  # not on macOS and Windows
        with file.open("rb") as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _config(meta: IndexMeta) -> Any:
    """One graph over memory-mapped float32 vectors, or over int8 copies in memory of mapped float16 vectors.

    A search reads hundreds of int8 copies (0.77 GB for a million of 768) and scores only a few hits again
    with the float16 on disk: mapped too, the copies would cost a cold disk tens of milliseconds per query.
    """
    quantization, datatype = None, None
    if meta.quantize:
        datatype = qdrant.VectorStorageDatatype.Float16
        quantization = qdrant.ScalarQuantizationConfig(
            type=qdrant.ScalarType.Int8, quantile=0.99, memory=qdrant.Memory.Pinned
        )
    return qdrant.EdgeConfig(
        vectors=qdrant.EdgeVectorParams(
            size=meta.dim, distance=qdrant.Distance.Cosine, datatype=datatype, memory=qdrant.Memory.Cold
        ),
        hnsw_config=qdrant.HnswIndexConfig(
            m=layout.HNSW_M, ef_construct=layout.HNSW_EF_CONSTRUCT, full_scan_threshold=layout.FULL_SCAN_KB
        ),
        optimizers=qdrant.EdgeOptimizersConfig(
            default_segment_number=1, max_segment_size=_SEGMENT_KB, indexing_threshold=layout.FULL_SCAN_KB
        ),
        quantization_config=quantization,
    )
