"""What the tests of the index share: the three engines, and vectors to put into them."""

import numpy as np
import pytest
from qdrant_client import QdrantClient

from rasr.retrieval import Payload, ReferenceIndex
from rasr.retrieval.engines import server

DIM = 16
ENGINES = ("edge", "flat", "server")


def unit_vectors(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def servers(monkeypatch):
    """Qdrant's in-memory mode in place of a server; what is there stays there for the whole test."""
    client = QdrantClient(":memory:")
    monkeypatch.setattr(server, "connect", lambda location: client)
    return client


@pytest.fixture(params=ENGINES)
def location(request, tmp_path, servers):
    """Where an index of each engine may lie, and the engine's name."""
    place = "http://localhost:6333/photos" if request.param == "server" else str(tmp_path / "index")
    return place, request.param


def create(location, **settings) -> ReferenceIndex:
    place, engine = location
    return ReferenceIndex.create(place, DIM, "toy", "v1", {"kind": "toy"}, engine=engine, **settings)


def fill(index: ReferenceIndex, folder, count: int = 50) -> tuple[list[str], np.ndarray]:
    """Add images 000 to 049 in categories c0, c1, c2; returns ids and vectors."""
    ids, vectors = [f"{n:03}" for n in range(count)], unit_vectors(count)
    payloads = [
        Payload(str(folder / f"{i}.png"), f"c{n % 3}", f"prompt {i}", (8, n), f"hash {i}")
        for n, i in enumerate(ids)
    ]
    index.add(ids[:20], vectors[:20], payloads[:20])
    index.add(ids[20:], vectors[20:], payloads[20:])
    return ids, vectors
