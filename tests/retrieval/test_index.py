"""The flat index: exact, persistent, safe against interruption, loud about damage."""

import json

import numpy as np
import pytest

from rasr.errors import RasrError
from rasr.retrieval import Payload, ReferenceIndex
from rasr.retrieval import index as index_module

DIM = 16


def unit_vectors(count: int, seed: int = 0, dim: int = DIM) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def fill(path, count: int = 50) -> tuple[ReferenceIndex, list[str], np.ndarray]:
    index = ReferenceIndex.create(path, DIM, "toy", "v1", {"kind": "toy"})
    ids, vectors = [f"{i:03d}" for i in range(count)], unit_vectors(count)
    payloads = [
        Payload(str(path.parent / f"{i}.png"), f"c{n % 3}", f"p {i}", (n + 1, 7), f"h{n % 40}")
        for n, i in enumerate(ids)
    ]
    for start in range(0, count, 20):
        stop = start + 20
        index.add(ids[start:stop], vectors[start:stop], payloads[start:stop])
    return index, ids, vectors


@pytest.mark.parametrize("block_rows", [7, 65536])
def test_search_equals_brute_force(tmp_path, monkeypatch, block_rows):
    monkeypatch.setattr(index_module, "_BLOCK_ROWS", block_rows)
    index, ids, vectors = fill(tmp_path / "index")
    queries = unit_vectors(9, seed=1)
    found, scores = index.search(queries, 5)
    for query, row_ids, row_scores in zip(queries, found, scores, strict=True):
        expected = sorted(((float(v @ query), i) for v, i in zip(vectors, ids, strict=True)), reverse=True)[
            :5
        ]
        assert row_ids == [i for _, i in expected]
        assert row_scores == pytest.approx([score for score, _ in expected], abs=2e-6)


def test_filter_and_exclusions_equal_brute_force(tmp_path):
    index, ids, vectors = fill(tmp_path / "index")
    query = vectors[3:4]  # category c0, hash h3, shared with the entry 043
    found, _ = index.search(query, 50, {"category": "c0"}, exclude_ids=["006"], exclude_hashes=["h3", "nope"])
    allowed = [n for n in range(50) if n % 3 == 0 and n != 6 and n % 40 != 3]
    expected = sorted(allowed, key=lambda n: -float(vectors[n] @ query[0]))
    assert found[0] == [ids[n] for n in expected]
    assert index.search(query, 1)[0] == [["003"]]
    assert index.search(query, 2, {"category": "none"})[0] == [[]]


@pytest.mark.parametrize("block_rows", [7, 65536])
def test_ties_are_decided_by_id_whatever_the_order_of_adding(tmp_path, monkeypatch, block_rows):
    """Equal rows may be summed in another order, hence differ in the last bit, and must tie all the same."""
    monkeypatch.setattr(index_module, "_BLOCK_ROWS", block_rows)
    vector = unit_vectors(1, dim=771)
    names = [f"n{n:02d}" for n in np.random.default_rng(2).permutation(40)]
    index = ReferenceIndex.create(tmp_path / "index", 771, "toy", "v1")
    index.add(names, np.repeat(vector, 40, axis=0), [Payload(n) for n in names])
    query = unit_vectors(3, seed=5, dim=771)
    for found in [*index.search(query, 5)[0], *(index.search(q[None], 5)[0][0] for q in query)]:
        assert found == ["n00", "n01", "n02", "n03", "n04"]


def test_everything_survives_closing_and_opening(tmp_path):
    index, ids, vectors = fill(tmp_path / "index")
    payload = index.payload("007")
    index.close()
    with ReferenceIndex.open(tmp_path / "index") as again:
        assert (again.count(), again.ids, again.dim) == (50, ids, DIM)
        assert (again.encoder_name, again.encoder_version) == ("toy", "v1")
        assert again.encoder_settings == {"kind": "toy"}
        assert again.payload("007") == payload
        assert payload.path == str(tmp_path / "007.png")
        assert payload.size == (8, 7)
        np.testing.assert_array_equal(again.vectors(ids), vectors)


def test_index_and_images_can_move_together(tmp_path):
    index, *_ = fill(tmp_path / "old" / "index")
    index.close()
    (tmp_path / "old").rename(tmp_path / "new")
    assert ReferenceIndex.open(tmp_path / "new" / "index").payload("001").path == str(
        tmp_path / "new" / "001.png"
    )


def test_adding_a_known_id_replaces_it_and_delete_removes(tmp_path):
    index, ids, vectors = fill(tmp_path / "index")
    new = unit_vectors(1, seed=9)
    index.add(["010"], new, [Payload("x.png", "other")])
    assert index.count() == 50
    assert index.search(new, 1)[0] == [["010"]]
    assert index.values("category")["other"] == ["010"]
    assert index.delete(["011", "012", "unknown"]) == 2
    index.close()
    again = ReferenceIndex.open(tmp_path / "index")
    assert set(again.ids) == set(ids) - {"011", "012"}
    np.testing.assert_array_equal(again.vectors(["049", "010"]), np.stack([vectors[49], new[0]]))
    assert len(list((tmp_path / "index").glob("vectors-*"))) == 1, "old generations are removed"
    again.delete(again.ids)
    assert again.search(new, 3)[0] == [[]]
    again.add(["1"], new, [Payload("y.png")])
    assert again.search(new, 3)[0] == [["1"]]


@pytest.mark.parametrize("at", ["append", "write_meta"])
@pytest.mark.parametrize("operation", ["add", "delete"])
def test_interrupted_write_leaves_the_committed_state(tmp_path, monkeypatch, operation, at):
    index, ids, vectors = fill(tmp_path / "index")

    real = getattr(index_module, at)

    def interrupt(path, *args):
        if at == "append":
            real(path, *args[:-1], args[-1][: len(args[-1]) // 2])  # half of it reaches the disk
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index_module, at, interrupt)
        if operation == "add":
            index.add(["new"], unit_vectors(1, seed=3), [Payload("new.png")])
        else:
            index.delete(["000"])
    index.close()
    again = ReferenceIndex.open(tmp_path / "index")
    assert again.ids == ids
    np.testing.assert_array_equal(again.vectors(ids), vectors)
    again.add(["new"], vectors[:1], [Payload("new.png")])
    assert ReferenceIndex.open(tmp_path / "index").ids == [*ids, "new"]
    again.delete(["000"])
    again.close()
    last = ReferenceIndex.open(tmp_path / "index")
    assert last.ids == [*ids[1:], "new"]
    assert last.search(vectors[:1], 1)[0] == [["new"]]


def test_interrupted_create_can_be_repeated(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(index_module, "write_meta", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        ReferenceIndex.create(tmp_path / "index", DIM, "toy", "v1")
    assert ReferenceIndex.create(tmp_path / "index", DIM, "toy", "v1").count() == 0


def test_create_touches_nothing_that_exists(tmp_path):
    index, *_ = fill(tmp_path / "index")
    with pytest.raises(RasrError, match="exists already"):
        ReferenceIndex.create(tmp_path / "index", DIM, "toy", "v1")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"x")
    with pytest.raises(RasrError, match="photos: exists already"):
        ReferenceIndex.create(tmp_path / "photos", DIM, "toy", "v1")
    assert ReferenceIndex.open(tmp_path / "index").count() == index.count()


def test_damage_is_found_at_open(tmp_path):
    index, *_ = fill(tmp_path / "index")
    index.close()
    folder = tmp_path / "index"

    def expect_error_after(name: str, damaged: bytes) -> None:
        file = folder / name
        original = file.read_bytes()
        file.write_bytes(damaged)
        with pytest.raises(RasrError, match=r"damaged.*build"):
            ReferenceIndex.open(folder)
        file.write_bytes(original)

    vectors, entries = folder / "vectors-0.f32", folder / "entries-0.jsonl"
    expect_error_after(vectors.name, vectors.read_bytes()[:-4])
    expect_error_after(entries.name, entries.read_bytes()[:-30])
    expect_error_after(entries.name, b"")
    expect_error_after("meta.json", b"{")
    meta = json.loads((folder / "meta.json").read_text())
    expect_error_after("meta.json", json.dumps({k: v for k, v in meta.items() if k != "dim"}).encode())
    ReferenceIndex.open(folder)
    (folder / "meta.json").write_text(json.dumps({**meta, "format": 99}))
    with pytest.raises(RasrError, match="update rasr"):
        ReferenceIndex.open(folder)
    with pytest.raises(RasrError, match=r"no index here.*index\.py"):
        ReferenceIndex.open(tmp_path / "nothing")


def test_one_writer_many_readers(tmp_path):
    writer, ids, vectors = fill(tmp_path / "index")
    other = ReferenceIndex.open(tmp_path / "index")
    with pytest.raises(RasrError, match="another process is writing"):
        other.add(["x"], vectors[:1], [Payload("x.png")])
    writer.delete(["000"])
    assert other.search(vectors[:1], 1)[0] == [["000"]], "a reader keeps the state that it opened"
    writer.close()
    with pytest.raises(RasrError, match="changed this index"):
        other.add(["x"], vectors[:1], [Payload("x.png")])
    assert ReferenceIndex.open(tmp_path / "index").ids == ids[1:]


def test_wrong_vectors_are_refused(tmp_path):
    index, *_ = fill(tmp_path / "index")
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
