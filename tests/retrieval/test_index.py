"""The index, every engine: right answers, nothing lost, an unfinished or foreign index refused."""

import json

import numpy as np
import pytest

from rasr.errors import RasrError
from rasr.retrieval import Payload, ReferenceIndex, copy_index
from rasr.retrieval.meta import FORMAT
from tests.retrieval.conftest import DIM, create, fill, unit_vectors


def test_search_is_that_of_brute_force(location, tmp_path):
    with create(location) as index:
        ids, vectors = fill(index, tmp_path)
        index.optimize()
        queries = unit_vectors(7, seed=1)
        found, scores = index.search(queries, 5)
        exact = queries @ vectors.T
        for row, (row_ids, row_scores) in enumerate(zip(found, scores, strict=True)):
            best = np.argsort(-exact[row])[:5]
            assert row_ids == [ids[n] for n in best]
            np.testing.assert_allclose(row_scores, exact[row][best], atol=1e-3)
        assert index.search(queries, 99)[0][0][:5] == found[0]
        assert len(index.search(queries, 99)[0][0]) == 50


def test_filter_searches_one_category(location, tmp_path):
    with create(location) as index:
        _, vectors = fill(index, tmp_path)
        (found,), _ = index.search(vectors[:1], 99, {"category": "c1"})
        assert sorted(found) == [f"{n:03}" for n in range(50) if n % 3 == 1]
        exact = vectors[[int(i) for i in found]] @ vectors[0]
        assert list(exact) == sorted(exact, reverse=True)
        assert index.search(vectors[:1], 3, {"category": "nothing"})[0] == [[]]
        with pytest.raises(ValueError, match="cannot filter"):
            index.search(vectors[:1], 3, {"prompt": "x"})


def test_equal_scores_come_in_the_order_of_ids(location):
    vector = unit_vectors(1)
    with create(location) as index:
        for entry_id in ("b", "c", "a"):
            index.add([entry_id], vector, [Payload("x.png")])
        assert index.search(vector, 3)[0] == [["a", "b", "c"]]


def test_reopened_index_holds_everything(location, tmp_path):
    with create(location) as index:
        ids, vectors = fill(index, tmp_path)
        index.optimize()
    with ReferenceIndex.open(location[0]) as again:
        assert (again.count(), sorted(again.ids)) == (50, ids)
        assert (again.engine, again.dim, again.state) == (location[1], DIM, "complete")
        assert (again.encoder_name, again.encoder_version) == ("toy", "v1")
        assert again.encoder_settings == {"kind": "toy"}
        assert again.categories() == {"c0": 17, "c1": 17, "c2": 16}
        expected = Payload(str(tmp_path / "007.png"), "c1", "prompt 007", (8, 7), "hash 007", "007")
        assert again.payload("007") == expected
        assert dict(again.entries())["007"] == expected
        np.testing.assert_allclose(again.vectors(ids), vectors, atol=5e-4)
        again.check_storage()
        with pytest.raises(KeyError, match="unknown"):
            again.payload("unknown")
        with pytest.raises(KeyError, match="unknown"):
            again.vectors(["unknown"])


def test_adding_a_known_id_replaces_it_and_delete_removes(location, tmp_path):
    with create(location) as index:
        ids, vectors = fill(index, tmp_path)
        new = unit_vectors(1, seed=9)
        index.add(["010"], new, [Payload("x.png", "other")])
        assert index.count() == 50
        assert index.search(new, 1)[0] == [["010"]]
        assert index.categories()["other"] == 1
        assert index.delete(["011", "012", "unknown"]) == 2
        assert index.delete(["unknown"]) == 0
    with ReferenceIndex.open(location[0]) as again:
        assert set(again.ids) == set(ids) - {"011", "012"}
        np.testing.assert_allclose(again.vectors(["049", "010"]), [vectors[49], new[0]], atol=5e-4)
        again.delete(again.ids)
        assert again.search(new, 3)[0] == [[]]
        again.add(["1"], new, [Payload("y.png")])
    with ReferenceIndex.open(location[0]) as last:
        assert last.search(new, 3)[0] == [["1"]]


def test_an_unfinished_index_is_refused_and_can_be_gone_on_with(location, tmp_path):
    index = create(location)
    ids, vectors = fill(index, tmp_path)
    index.abandon()
    with pytest.raises(RasrError, match=r"interrupted.*run the same index\.py command again"):
        ReferenceIndex.open(location[0])
    with ReferenceIndex.open(location[0], allow_unfinished=True) as rest:
        assert sorted(rest.ids) == ids
    with pytest.raises(KeyboardInterrupt), ReferenceIndex.open(location[0]) as again:
        again.delete(["000"])
        raise KeyboardInterrupt
    with pytest.raises(RasrError, match="interrupted"):
        ReferenceIndex.open(location[0])
    with ReferenceIndex.open(location[0], allow_unfinished=True) as rest:
        assert rest.count() == 49
    assert ReferenceIndex.open(location[0]).search(vectors[1:2], 1)[0] == [["001"]]


def test_reading_changes_nothing(location, tmp_path):
    with create(location) as index:
        _, vectors = fill(index, tmp_path)
    for _ in range(2):
        with ReferenceIndex.open(location[0]) as reader:
            reader.search(vectors[:1], 1)
            reader.check_storage()
            assert reader.state == "complete"


def test_create_touches_nothing_that_exists(location, tmp_path):
    with create(location) as index:
        fill(index, tmp_path)
    with pytest.raises(RasrError, match="exists already"):
        create(location)
    with ReferenceIndex.open(location[0]) as index:
        assert index.count() == 50


def test_wrong_vectors_are_refused(location, tmp_path):
    with create(location) as index:
        fill(index, tmp_path)
        good = unit_vectors(2)
        with pytest.raises(ValueError, match="shape"):
            index.search(good[:, :4], 1)
        with pytest.raises(ValueError, match="L2-normalised"):
            index.add(["a", "b"], good * 2, [Payload("a"), Payload("b")])
        with pytest.raises(ValueError, match="L2-normalised"):
            index.search(good * np.nan, 1)
        with pytest.raises(ValueError, match="twice"):
            index.add(["a", "a"], good, [Payload("a"), Payload("b")])
        with pytest.raises(ValueError, match="at least 1"):
            index.search(good, 0)
        assert index.count() == 50


@pytest.mark.parametrize("engine", ["edge", "flat"])
def test_index_and_images_can_move_together(tmp_path, engine):
    (tmp_path / "old").mkdir()
    with create((tmp_path / "old" / "index", engine)) as index:
        fill(index, tmp_path / "old")
    (tmp_path / "old").rename(tmp_path / "new")
    with ReferenceIndex.open(tmp_path / "new" / "index") as moved:
        assert moved.payload("001").path == str(tmp_path / "new" / "001.png")


@pytest.mark.parametrize("engine", ["edge", "flat"])
def test_folders_without_a_readable_index_are_refused(tmp_path, engine):
    with create((tmp_path / "index", engine)) as index:
        fill(index, tmp_path)
    with pytest.raises(RasrError, match=r"no index here.*index\.py"):
        ReferenceIndex.open(tmp_path / "nothing")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(RasrError, match="photos: exists already"):
        create((tmp_path / "photos", engine))
    file = tmp_path / "index" / "meta.json"
    meta = json.loads(file.read_text())
    for changes, message in [
        ({"format": FORMAT - 1}, r"format 1, this rasr reads 2; delete it and build it again"),
        ({"format": FORMAT + 1}, "update rasr"),
        ({"count": 49}, "49 entries were written, 50 are there|50 entries instead of 49|damaged"),
        ({"engine": "other"}, "engine='other' is unknown"),
        ({"dim": None}, "damaged .*wrong dim"),
        ({"dim": DIM // 2}, f"damaged .*not of length {DIM // 2}"),
        ({"files": None}, "damaged .*wrong files"),
        ({"state": "finished"}, "damaged .*wrong state"),
        ({"patches": 3}, "damaged .*wrong patches"),
        ({"encoder": {"name": "toy", "version": "v1", "settings": None}}, "damaged .*wrong encoder"),
        ({"storage": None}, "damaged .*wrong storage"),
    ]:
        file.write_text(json.dumps(meta | changes))
        with pytest.raises(RasrError, match=message):
            ReferenceIndex.open(tmp_path / "index")
    for text in ("{", "[]", json.dumps({k: v for k, v in meta.items() if k != "dim"})):
        file.write_text(text)
        with pytest.raises(RasrError, match=r"damaged.*build it again"):
            ReferenceIndex.open(tmp_path / "index")


@pytest.mark.parametrize("source", ["edge", "flat"])
def test_an_index_moves_from_engine_to_engine(tmp_path, servers, source):
    """Also the way from a folder to a server: everything arrives, with absolute paths there."""
    with create((tmp_path / "index", source), patches={"size": 8, "overlap": 0}) as index:
        ids, vectors = fill(index, tmp_path)
    with ReferenceIndex.open(tmp_path / "index") as index:
        for place, engine in [("http://host/c", "edge"), (tmp_path / "e", "edge"), (tmp_path / "f", "flat")]:
            assert copy_index(index, place, engine=engine, show_progress=False) == 50
            with ReferenceIndex.open(place) as copied:
                assert sorted(copied.ids) == ids
                assert copied.payloads(ids) == index.payloads(ids)
                assert (copied.patches, copied.encoder_name) == ({"size": 8, "overlap": 0}, "toy")
                np.testing.assert_allclose(copied.vectors(ids), vectors, atol=1e-3)
                assert copied.search(vectors[:3], 1)[0] == [["000"], ["001"], ["002"]]
