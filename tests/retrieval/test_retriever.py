"""The retriever: right order, never the image itself, never another encoder's vectors."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import content_hash, read_image, write_png
from rasr.retrieval import ColorGradientEncoder, ReferenceIndex, Retriever, build_index


@pytest.fixture
def database(tmp_path):
    for n, category in enumerate(["cat", "cat", "dog", "dog", "dog"]):
        write_png(torch.rand(3, 40, 40) * (n + 1) / 5, tmp_path / "db" / category / f"{n}.png")
    (tmp_path / "db" / "dog" / "4.txt").write_text("a dog\n")
    (tmp_path / "db" / "dog" / "copy.png").write_bytes((tmp_path / "db" / "cat" / "1.png").read_bytes())
    return tmp_path / "db"


@pytest.fixture(params=["edge", "flat"])
def retriever(request, database, tmp_path):
    settings = {"engine": request.param, "show_progress": False}
    build_index(database, tmp_path / "index", ColorGradientEncoder(), **settings)
    with Retriever.open(tmp_path / "index") as retriever:
        yield retriever


def test_hits_are_ordered_and_described(retriever, database):
    file = database / "dog" / "4.png"
    hits = retriever.retrieve(read_image(file), k=10)
    assert len(hits) == 6
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    best = hits[0]
    assert (best.id, best.category, best.prompt, best.box) == ("dog/4.png", "dog", "a dog", None)
    assert (best.path, best.content_hash) == (file, content_hash(file))
    assert best.score == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(best.read(), read_image(file))


def test_leak_guard_by_id_path_and_content(retriever, database, tmp_path):
    file = database / "cat" / "1.png"
    query = read_image(file)
    assert [hit.id for hit in retriever.retrieve(query, 2)] == ["cat/1.png", "dog/copy.png"]
    assert retriever.retrieve(query, exclude_ids=["cat/1.png"])[0].id == "dog/copy.png"
    (tmp_path / "link").symlink_to(database / "cat")
    assert retriever.retrieve(query, exclude_paths=[tmp_path / "link" / "1.png"])[0].id == "dog/copy.png"
    hits = retriever.retrieve(query, 10, exclude_hashes=[content_hash(file)])
    assert {hit.id for hit in hits} == {"cat/0.png", "dog/2.png", "dog/3.png", "dog/4.png"}
    assert len(retriever.retrieve(query, 4, exclude_hashes=[content_hash(file)])) == 4
    assert retriever.retrieve(query, 1, exclude_ids=retriever.index.ids) == []


def test_near_duplicates_are_passed_over(retriever, database, tmp_path):
    """A JPEG of a database image has other bytes; its cosine betrays it."""
    from PIL import Image

    Image.open(database / "dog" / "4.png").save(tmp_path / "4.jpg", quality=90)
    query, guard = read_image(tmp_path / "4.jpg"), [content_hash(tmp_path / "4.jpg")]
    best = retriever.retrieve(query, 6, exclude_hashes=guard)
    assert best[0].id == "dog/4.png"
    assert best[0].score > best[1].score + 1e-4
    between = (best[0].score + best[1].score) / 2
    assert retriever.retrieve(query, 5, exclude_hashes=guard, max_score=between) == best[1:]


def test_category_restricts_and_must_exist(retriever):
    hits = retriever.retrieve(torch.rand(3, 9, 9), k=10, category="cat")
    assert {hit.id for hit in hits} == {"cat/0.png", "cat/1.png"}
    with pytest.raises(RasrError, match=r"'bird' is not in the index.*cat, dog"):
        retriever.retrieve(torch.rand(3, 9, 9), category="bird")


def test_of_several_crops_of_an_image_the_best_is_the_hit(tmp_path):
    colours = torch.rand(3, 5, 2, generator=torch.Generator().manual_seed(3))
    for n in range(5):  # left and right half of their own colour
        image = colours[:, n, :, None].repeat_interleave(20, 2).view(3, 1, 40).repeat(1, 20, 1)
        write_png(image, tmp_path / "db" / f"{n}.png")
    patches = {"size": 20, "overlap": 10}
    encoder = ColorGradientEncoder()
    build_index(tmp_path / "db", tmp_path / "index", encoder, patches=patches, show_progress=False)
    with Retriever.open(tmp_path / "index") as retriever:
        assert retriever.index.count() == 15
        query = read_image(tmp_path / "db" / "3.png")[:, :, 20:]
        hits = retriever.retrieve(query, k=5)
        assert sorted(hit.path.name for hit in hits) == [f"{n}.png" for n in range(5)], "each image once"
        assert (hits[0].path.name, hits[0].box) == ("3.png", (20, 0, 40, 20))
        torch.testing.assert_close(hits[0].read(), query)
        others = retriever.retrieve(query, k=5, exclude_ids=["3.png"])
        assert {hit.path.name for hit in others} == {f"{n}.png" for n in (0, 1, 2, 4)}


def test_another_encoder_is_refused(database, tmp_path):
    build_index(database, tmp_path / "index", ColorGradientEncoder(), show_progress=False)
    other = ColorGradientEncoder(grid=4)
    with ReferenceIndex.open(tmp_path / "index") as index:
        with pytest.raises(RasrError, match=r"built by encoder color_gradient version .* but this is"):
            Retriever(index, other)
        renamed = ColorGradientEncoder()
        renamed.name = "dinov2"
        with pytest.raises(RasrError, match="dinov2"):
            Retriever(index, renamed)
    with pytest.raises(RasrError, match="built by encoder"):
        build_index(database, tmp_path / "index", other, show_progress=False)


def test_opening_makes_the_encoder_that_built_the_index(tmp_path):
    write_png(torch.rand(3, 20, 20), tmp_path / "db" / "a.png")
    build_index(tmp_path / "db", tmp_path / "index", ColorGradientEncoder(grid=4), show_progress=False)
    with Retriever.open(tmp_path / "index") as retriever:
        assert retriever.encoder.grid == 4
    ReferenceIndex.create(tmp_path / "strange", 3, "x", "1", {"kind": "x"}).close()
    for _ in range(2):  # a failure lets go of the index
        with pytest.raises(RasrError, match="unknown kind of encoder"):
            Retriever.open(tmp_path / "strange")
