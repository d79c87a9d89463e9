"""The engine `flat`: interrupted writes, damage, one writer beside readers."""

import numpy as np
import pytest

from rasr.errors import RasrError
from rasr.retrieval import Payload, ReferenceIndex
from rasr.retrieval.engines import flat as flat_module
from tests.retrieval.conftest import create, fill, unit_vectors


@pytest.fixture
def index(tmp_path):
    with create((tmp_path / "index", "flat")) as index:
        fill(index, tmp_path)
    return ReferenceIndex.open(tmp_path / "index")


def test_vectors_are_float16_on_disk(index, tmp_path):
    assert (tmp_path / "index" / "vectors-0.f16").stat().st_size == 50 * 16 * 2


@pytest.mark.parametrize("at", ["append", "_update_meta"])
@pytest.mark.parametrize("operation", ["add", "delete"])
def test_interrupted_write_leaves_the_committed_state(index, tmp_path, monkeypatch, operation, at):
    ids, vectors = index.ids, index.vectors(index.ids)
    index._begin_writing()

    def interrupt(*args, **kwargs):
        if at == "append":
            path, offset, data = args
            real(path, offset, data[: len(data) // 2])  # half of it reaches the disk
        raise KeyboardInterrupt

    place = flat_module if at == "append" else flat_module.FlatIndex
    real = getattr(place, at)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(place, at, interrupt)
        if operation == "add":
            index.add(["new"], unit_vectors(1, seed=3), [Payload("new.png")])
        else:
            index.delete(["000"])
    index.abandon()
    with ReferenceIndex.open(tmp_path / "index", allow_unfinished=True) as again:
        assert again.ids == ids
        np.testing.assert_array_equal(again.vectors(ids), vectors)
        again.add(["new"], unit_vectors(1, seed=3), [Payload("new.png")])
        again.delete(["000"])
    last = ReferenceIndex.open(tmp_path / "index")
    assert last.ids == [*ids[1:], "new"]
    assert last.search(unit_vectors(1, seed=3), 1)[0] == [["new"]]
    assert len(list((tmp_path / "index").glob("vectors-*"))) == 1, "old generations are removed"


def test_interrupted_create_can_be_repeated(tmp_path, monkeypatch):
    from rasr.retrieval.engines import folder

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(folder, "write_meta", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        create((tmp_path / "index", "flat"))
    assert create((tmp_path / "index", "flat")).count() == 0


@pytest.mark.parametrize("name", ["vectors-0.f16", "entries-0.jsonl"])
@pytest.mark.parametrize("change", ["cut", "emptied", "zeroed", "one byte", "missing"])
def test_damage_is_found_at_open(index, tmp_path, name, change):
    file = tmp_path / "index" / name
    content = file.read_bytes()
    damaged = {
        "cut": content[:-4],
        "emptied": b"",
        "zeroed": bytes(len(content)),
        "one byte": content[:100] + bytes([content[100] ^ 1]) + content[101:],
    }
    file.unlink() if change == "missing" else file.write_bytes(damaged[change])
    with pytest.raises(RasrError, match=r"damaged.*build it again"):
        ReferenceIndex.open(tmp_path / "index")


def test_one_writer_and_readers_that_keep_their_state(index, tmp_path):
    reader, other = (ReferenceIndex.open(tmp_path / "index") for _ in range(2))
    vector = index.vectors(["000"])
    index.delete(["000"])
    with pytest.raises(RasrError, match="another process is writing"):
        other.add(["x"], vector / np.linalg.norm(vector), [Payload("x.png")])
    assert reader.search(vector, 1)[0] == [["000"]], "a reader keeps the state that it opened"
    with pytest.raises(RasrError, match="being written"):
        ReferenceIndex.open(tmp_path / "index")
    index.close()
    assert reader.search(vector, 1)[0] == [["000"]]
    with pytest.raises(RasrError, match="changed this index"):
        other.add(["x"], vector / np.linalg.norm(vector), [Payload("x.png")])
    assert ReferenceIndex.open(tmp_path / "index").count() == 49


def test_quantize_is_not_for_flat(tmp_path):
    with pytest.raises(RasrError, match="quantize=true is not for engine=flat"):
        create((tmp_path / "index", "flat"), quantize=True)


def test_search_is_exact_though_scores_are_first_taken_in_float16(tmp_path):
    """Many scores around the last place that float16 would order differently."""
    vectors, queries = unit_vectors(6000, seed=2), unit_vectors(100, seed=3)
    ids = [f"{n:04}" for n in range(len(vectors))]
    with create((tmp_path / "many", "flat")) as many:
        many.add(ids, vectors, [Payload("x.png", f"c{n % 2}") for n in range(len(ids))])
        stored = many.vectors(ids)
        for allowed, filter in ((np.arange(6000), None), (np.arange(1, 6000, 2), {"category": "c1"})):
            found, scores = many.search(queries, 200, filter)
            for query, row, row_scores in zip(queries, found, scores, strict=True):
                exact = stored[allowed] @ query
                best = np.sort(exact)[::-1][:200]
                np.testing.assert_allclose(row_scores, best, atol=2e-6)
                assert set(row) <= {ids[n] for n in allowed}
