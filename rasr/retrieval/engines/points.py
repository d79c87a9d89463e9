"""How entries lie in Qdrant, the same for the edge engine and for a server.

A point's id is the UUIDv5 of the entry's id. Its vector is the collection's only, unnamed one, its payload
that of the entry with `id`, `encoder` (name and version). `category` is indexed as a keyword.
"""

import uuid
from collections.abc import Mapping
from typing import Any

from rasr.retrieval.meta import IndexMeta
from rasr.retrieval.payload import Payload

HNSW_M = 16
HNSW_EF_CONSTRUCT = 100
HNSW_EF_SEARCH = 128  # Qdrant's default is ef_construct; a little more for recall
OVERSAMPLING = 2.0  # of int8 candidates that are scored again
FULL_SCAN_KB = 4_000  # less is searched exactly: 1,300 vectors of 768 float32, well below a millisecond

_NAMESPACE = uuid.UUID("5f0b7c3e-6a3d-5c57-9a10-9d7b3f1f2c11")


def point_id(entry_id: str) -> str:
    return str(uuid.uuid5(_NAMESPACE, entry_id))


def to_point_payload(entry_id: str, payload: Payload, meta: IndexMeta) -> dict[str, Any]:
    encoder = f"{meta.encoder['name']} {meta.encoder['version']}"
    return {"id": entry_id, **payload.to_dict(), "size": list(payload.size), "encoder": encoder}


def from_point_payload(values: Mapping[str, Any]) -> tuple[str, Payload]:
    values = dict(values)
    values.pop("encoder")
    entry_id = values.pop("id")
    return entry_id, Payload.from_dict(values)
