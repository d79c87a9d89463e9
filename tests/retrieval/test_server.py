"""The engine `server`: the layout of its points, its errors, and a real one where QDRANT_URL names it."""

import os
import uuid

import numpy as np
import pytest
from qdrant_client import models

from rasr.errors import RasrError
from rasr.retrieval import ReferenceIndex, copy_index
from rasr.retrieval.engines.server import collection_name, connect
from tests.retrieval.conftest import create, fill


def test_points_are_laid_out_as_documented(servers, tmp_path):
    with create(("http://host:6333/photos", "server"), quantize=True) as index:
        fill(index, tmp_path)
    config = servers.get_collection("photos").config
    assert config.params.vectors.distance == models.Distance.COSINE
    assert config.metadata["rasr"]["count"] == 50
    (record,) = servers.retrieve("photos", [str(uuid.uuid5(NAMESPACE, "007"))], with_vectors=True)
    assert record.payload == {
        "id": "007",
        "path": str(tmp_path / "007.png"),
        "category": "c1",
        "prompt": "prompt 007",
        "size": [8, 7],
        "content_hash": "hash 007",
        "image": "007",
        "box": None,
        "encoder": "toy v1",
    }
    assert len(record.vector) == 16


NAMESPACE = uuid.UUID("5f0b7c3e-6a3d-5c57-9a10-9d7b3f1f2c11")


def test_readers_see_what_a_writer_adds_and_new_ones_are_refused_until_it_closes(servers, tmp_path):
    place = "http://host/photos"
    with create((place, "server")) as index:
        _, vectors = fill(index, tmp_path)
    reader, writer = ReferenceIndex.open(place), ReferenceIndex.open(place)
    writer.delete(["000"])
    assert reader.search(vectors[:1], 1)[0] != [["000"]]
    with pytest.raises(RasrError, match="being written"):
        ReferenceIndex.open(place)
    writer.close()
    assert ReferenceIndex.open(place).count() == 49


def test_urls_and_their_mistakes(servers):
    assert collection_name("https://host:6333/some/prefix/photos/") == "photos"
    with pytest.raises(RasrError, match=r"^http://host:6333/: names no collection"):
        ReferenceIndex.open("http://host:6333/")
    with pytest.raises(RasrError, match=r"no such collection; make it with python index\.py"):
        ReferenceIndex.open("http://host:6333/photos")
    servers.create_collection(
        "other", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT)
    )
    with pytest.raises(RasrError, match=r"index\.py did not make"):
        ReferenceIndex.open("http://host:6333/other")


def test_lost_points_are_damage(servers, tmp_path):
    with create(("http://host/photos", "server")) as index:
        fill(index, tmp_path)
    servers.delete("photos", models.PointIdsList(points=[str(uuid.uuid5(NAMESPACE, "007"))]))
    with pytest.raises(RasrError, match="50 entries were written, 49 are there"):
        ReferenceIndex.open("http://host/photos")


def test_a_server_that_does_not_answer_is_one_line(monkeypatch):
    monkeypatch.setenv("QDRANT_API_KEY", "secret")
    with pytest.raises(RasrError, match="no answer from the Qdrant server") as error:
        ReferenceIndex.open("http://127.0.0.1:9/photos")
    assert "\n" not in str(error.value)
    assert "secret" not in str(error.value)


@pytest.mark.network
@pytest.mark.skipif("QDRANT_URL" not in os.environ, reason="QDRANT_URL names no server")
def test_a_local_index_moves_to_a_real_server(tmp_path):
    place = f"{os.environ['QDRANT_URL'].rstrip('/')}/rasr-test-{uuid.uuid4().hex}"
    with create((tmp_path / "index", "edge")) as index:
        ids, vectors = fill(index, tmp_path)
    try:
        with ReferenceIndex.open(tmp_path / "index") as index:
            copy_index(index, place, show_progress=False)
            with ReferenceIndex.open(place) as moved:
                assert sorted(moved.ids) == ids
                assert moved.payloads(ids) == index.payloads(ids)
                assert moved.search(vectors, 3)[0] == index.search(vectors, 3)[0]
                np.testing.assert_allclose(moved.vectors(ids), vectors, atol=1e-5)
                assert moved.categories() == index.categories()
                found = moved.search(vectors[:1], 9, {"category": "c1"})[0]
                assert found == index.search(vectors[:1], 9, {"category": "c1"})[0]
    finally:
        connect(place).delete_collection(collection_name(place))
