"""The retriever: right order, never the image itself, never another encoder's vectors."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import content_hash, read_image, write_png
from rasr.retrieval import ColorGradientEncoder, ReferenceIndex, Retriever, build_index


@pytest.fixture
def retriever(tmp_path) -> Retriever:
    for n, category in enumerate(["cat", "cat", "dog", "dog", "dog"]):
        write_png(torch.rand(3, 40, 40) * (n + 1) / 5, tmp_path / "db" / category / f"{n}.png")
    (tmp_path / "db" / "dog" / "4.txt").write_text("a dog\n")
    (tmp_path / "db" / "dog" / "copy.png").write_bytes((tmp_path / "db" / "cat" / "1.png").read_bytes())
    build_index(tmp_path / "db", tmp_path / "index", ColorGradientEncoder(), show_progress=False)
    return Retriever.open(tmp_path / "index")


def test_hits_are_ordered_and_described(retriever, tmp_path):
    hits = retriever.retrieve(read_image(tmp_path / "db" / "dog" / "4.png"), k=10)
    assert len(hits) == 6
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    best = hits[0]
    assert (best.id, best.category, best.prompt) == ("dog/4.png", "dog", "a dog")
    assert best.score == pytest.approx(1, abs=1e-5)
    assert best.path == tmp_path / "db" / "dog" / "4.png"


def test_leak_guard_by_id_and_by_content(retriever, tmp_path):
    file = tmp_path / "db" / "cat" / "1.png"
    query = read_image(file)
    assert [hit.id for hit in retriever.retrieve(query, 2)] == ["cat/1.png", "dog/copy.png"]
    assert retriever.retrieve(query, exclude_ids=["cat/1.png"])[0].id == "dog/copy.png"
    hits = retriever.retrieve(query, 10, exclude_hashes=[content_hash(file)])
    assert {hit.id for hit in hits} == {"cat/0.png", "dog/2.png", "dog/3.png", "dog/4.png"}


def test_category_restricts_and_must_exist(retriever):
    hits = retriever.retrieve(torch.rand(3, 9, 9), k=10, category="cat")
    assert {hit.id for hit in hits} == {"cat/0.png", "cat/1.png"}
    with pytest.raises(RasrError, match=r"'bird' is not in the index.*cat, dog"):
        retriever.retrieve(torch.rand(3, 9, 9), category="bird")


def test_another_encoder_is_refused(retriever, tmp_path):
    other = ColorGradientEncoder(grid=4)
    with pytest.raises(RasrError, match=r"built by encoder color_gradient version .* but this is"):
        Retriever(retriever.index, other)
    with pytest.raises(RasrError, match="built by encoder"):
        build_index(tmp_path / "db", tmp_path / "index", other, show_progress=False)
    renamed = ColorGradientEncoder()
    renamed.name = "dinov2"
    with pytest.raises(RasrError, match="dinov2"):
        Retriever(retriever.index, renamed)


def test_opening_makes_the_encoder_that_built_the_index(tmp_path):
    write_png(torch.rand(3, 20, 20), tmp_path / "db" / "a.png")
    build_index(tmp_path / "db", tmp_path / "index", ColorGradientEncoder(grid=4), show_progress=False)
    assert Retriever.open(tmp_path / "index").encoder.grid == 4
    ReferenceIndex.create(tmp_path / "strange", 3, "x", "1", {"kind": "x"})
    with pytest.raises(RasrError, match="unknown kind of encoder"):
        Retriever.open(tmp_path / "strange")
