"""The engine `server`: a collection on a Qdrant server or cluster, http://host:6333/collection.

The points lie as in the edge engine (`rasr.retrieval.engines.points`); the description of the index is the
collection's metadata. Several processes may read and write at the same time; an API key comes from the
environment variable QDRANT_API_KEY. Paths are kept absolute: every machine that restores must see the images
there.
"""

import os
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ApiException

from rasr.errors import RasrError
from rasr.retrieval.engines import points as layout
from rasr.retrieval.engines.base import ReferenceIndex
from rasr.retrieval.meta import IndexMeta, check_finished, damaged
from rasr.retrieval.payload import Payload

_PAGE = 1024
_UPSERT = 256  # 768 floats as JSON are 16 KB; a server takes requests up to 32 MB
_META_KEY = "rasr"
_POLL = 0.5  # seconds


class ServerIndex(ReferenceIndex):
    """See the module's text."""

    engine_name = "server"

    def __init__(self, location: str, meta: IndexMeta, client: QdrantClient) -> None:
        super().__init__(location, meta)
        self._client: QdrantClient | None = client
        self._name = collection_name(location)
        rescore = models.QuantizationSearchParams(rescore=True, oversampling=layout.OVERSAMPLING)
        self._search_params = models.SearchParams(
            hnsw_ef=layout.HNSW_EF_SEARCH, quantization=rescore if meta.quantize else None
        )

    @classmethod
    def is_there(cls, location: str) -> bool:
        client, name = connect(location), collection_name(location)
        try:
            return client.collection_exists(name)
        except (ApiException, OSError, ValueError) as error:
            raise _unreachable(location, error) from error

    @classmethod
    def make(cls, location: str, meta: IndexMeta) -> "ServerIndex":
        if cls.is_there(location):
            raise RasrError(f"{location}: exists already; choose another collection or delete it")
        name, client = collection_name(location), connect(location)
        quantization = models.ScalarQuantizationConfig(
            type=models.ScalarType.INT8, quantile=0.99, always_ram=True
        )
        client.create_collection(
            name,
            vectors_config=models.VectorParams(
                size=meta.dim,
                distance=models.Distance.COSINE,
                on_disk=True,
                datatype=models.Datatype.FLOAT16 if meta.quantize else None,
            ),
            hnsw_config=models.HnswConfigDiff(
                m=layout.HNSW_M,
                ef_construct=layout.HNSW_EF_CONSTRUCT,
                full_scan_threshold=layout.FULL_SCAN_KB,
            ),
            optimizers_config=models.OptimizersConfigDiff(indexing_threshold=layout.FULL_SCAN_KB),
            quantization_config=models.ScalarQuantization(scalar=quantization) if meta.quantize else None,
            metadata={_META_KEY: meta.to_dict()},
        )
        client.create_payload_index(name, "category", models.PayloadSchemaType.KEYWORD)
        return cls(location, meta, client)

    @classmethod
    def load(cls, location: str, allow_unfinished: bool) -> "ServerIndex":
        if not cls.is_there(location):
            raise RasrError(
                f"{location}: no such collection; make it with python index.py database=DIR index={location}"
            )
        client = connect(location)
        metadata = client.get_collection(collection_name(location)).config.metadata or {}
        if _META_KEY not in metadata:
            raise RasrError(f"{location}: a collection that index.py did not make; choose another name")
        index = cls(location, IndexMeta.from_dict(metadata[_META_KEY], location), client)
        check_finished(location, index._meta, allow_unfinished)
        if index._meta.state == "complete" and index.count() != index._meta.count:
            raise damaged(location, f"{index._meta.count} entries were written, {index.count()} are there")
        return index

    def count(self) -> int:
        return self._client.count(self._name, exact=True).count

    def vectors(self, ids: Sequence[str]) -> np.ndarray:
        vectors = [record.vector for record in self._retrieve(ids, with_vectors=True)]
        return np.array(vectors, dtype=np.float32).reshape(-1, self.dim)

    def optimize(self) -> None:
        """Wait until the server has built its graph."""
        while self._client.get_collection(self._name).status not in (
            models.CollectionStatus.GREEN,
            models.CollectionStatus.GREY,  # optimisation is switched off
        ):
            time.sleep(_POLL)

    def check_storage(self) -> None:
        """Its files are the server's own business."""

    def _known(self, ids: list[str]) -> Iterable[str]:
        for start in range(0, len(ids), _PAGE):
            page = {layout.point_id(entry_id): entry_id for entry_id in ids[start : start + _PAGE]}
            for record in self._client.retrieve(self._name, list(page), with_payload=False):
                yield page[str(record.id)]

    def _add(self, ids: Sequence[str], vectors: np.ndarray, payloads: list[Payload]) -> None:
        for start in range(0, len(ids), _UPSERT):
            part = slice(start, start + _UPSERT)
            points = [
                models.PointStruct(
                    id=layout.point_id(entry_id),
                    vector=vector.tolist(),
                    payload=layout.to_point_payload(entry_id, payload, self._meta),
                )
                for entry_id, vector, payload in zip(ids[part], vectors[part], payloads[part], strict=True)
            ]
            self._client.upsert(self._name, points, wait=True)

    def _delete(self, ids: list[str]) -> None:
        points = [layout.point_id(entry_id) for entry_id in ids]
        for start in range(0, len(points), _PAGE):
            selector = models.PointIdsList(points=points[start : start + _PAGE])
            self._client.delete(self._name, selector, wait=True)

    def _search(self, vectors: np.ndarray, k: int, filter: dict[str, str]) -> list[list[tuple[str, float]]]:
        conditions = [
            models.FieldCondition(key=key, match=models.MatchValue(value=value))
            for key, value in filter.items()
        ]
        requests = [
            models.QueryRequest(
                query=vector.tolist(),
                limit=k,
                filter=models.Filter(must=conditions) if conditions else None,
                params=self._search_params,
                with_payload=["id"],
            )
            for vector in vectors
        ]
        responses = self._client.query_batch_points(self._name, requests) if requests else []
        return [[(point.payload["id"], point.score) for point in response.points] for response in responses]

    def _payloads(self, ids: list[str]) -> list[Payload]:
        return [
            layout.from_point_payload(record.payload)[1] for record in self._retrieve(ids, with_vectors=False)
        ]

    def _entries(self) -> Iterator[tuple[str, Payload]]:
        offset = None
        while True:
            records, offset = self._client.scroll(self._name, limit=_PAGE, offset=offset, with_payload=True)
            yield from (layout.from_point_payload(record.payload) for record in records)
            if offset is None:
                return

    def _categories(self) -> dict[str, int]:
        hits = self._client.facet(self._name, "category", limit=self.count() + 1, exact=True).hits
        return {str(hit.value): hit.count for hit in hits}

    def _retrieve(self, ids: Sequence[str], *, with_vectors: bool) -> list[Any]:
        points = [layout.point_id(entry_id) for entry_id in ids]
        records = {}
        for start in range(0, len(points), _PAGE):
            page = points[start : start + _PAGE]
            for record in self._client.retrieve(
                self._name, page, with_payload=not with_vectors, with_vectors=with_vectors
            ):
                records[str(record.id)] = record
        for entry_id, point in zip(ids, points, strict=True):
            if point not in records:
                raise KeyError(entry_id)
        return [records[point] for point in points]

    def _is_open(self) -> bool:
        return self._client is not None

    def _begin_writing(self) -> None:
        if self._meta.state != "writing":
            self._update_meta(state="writing")

    def _complete(self) -> None:
        self._update_meta(state="complete", count=self.count())

    def _update_meta(self, **changes: Any) -> None:
        self._meta = replace(self._meta, **changes)
        self._client.update_collection(self._name, metadata={_META_KEY: self._meta.to_dict()})

    def _release(self) -> None:
        self._client = None

    def _stored_path(self, path: str) -> str:
        return os.path.abspath(path)


def collection_name(location: str) -> str:
    """The last part of the URL's path."""
    name = urlsplit(location).path.rstrip("/").rpartition("/")[2]
    if not name:
        raise RasrError(f"{location}: names no collection; write http://HOST:6333/COLLECTION")
    return name


def connect(location: str) -> QdrantClient:
    """A client of the server in the URL; nothing is sent yet."""
    parts = urlsplit(location)
    prefix = parts.path.rstrip("/").rpartition("/")[0].strip("/")
    return QdrantClient(
        url=f"{parts.scheme}://{parts.netloc}",
        prefix=prefix or None,
        api_key=os.environ.get("QDRANT_API_KEY"),
        check_compatibility=False,
    )


def _unreachable(location: str, error: Exception) -> RasrError:
    reason = " ".join(str(error).split())
    return RasrError(
        f"{location}: no answer from the Qdrant server ({reason}); check the URL and that it runs"
    )
