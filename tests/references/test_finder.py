"""ReferenceFinder: the kinds of Table 6, shares, the leak guard."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import ImageReadError, content_hash, read_image, write_png
from rasr.image_ops import resize_bicubic
from rasr.references import ReferenceFinder
from rasr.retrieval import ColorGradientEncoder, Retriever, build_index


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    folder = tmp_path_factory.mktemp("database")
    generator = torch.Generator().manual_seed(0)
    for name in "abcdef":
        write_png(torch.rand(3, 24, 24, generator=generator), folder / "images" / f"{name}.png")
    (folder / "images" / "a.txt").write_text("a wall")
    build_index(folder / "images", folder / "index", ColorGradientEncoder(), show_progress=False)
    return folder


@pytest.fixture(scope="module")
def retriever(database):
    return Retriever.open(database / "index", device="cpu")


def find(database, name="a.png", **settings):
    path = database / "images" / name
    return ReferenceFinder(**settings).find(read_image(path), path)


def test_found_are_the_best_with_shares_and_never_the_photograph(database, retriever):
    one = find(database, retriever=retriever)
    assert len(one) == 1 and one[0].weight == 1 and one[0].id != "a.png"
    three = find(database, retriever=retriever, k=3)
    assert three[0].id == one[0].id and "a.png" not in {r.id for r in three}
    assert sum(r.weight for r in three) == pytest.approx(1)
    scores = [r.score for r in three]
    assert scores == sorted(scores, reverse=True)
    sharper = find(database, retriever=retriever, k=3, temperature=0.01)
    assert sharper[0].weight > three[0].weight
    path = database / "images" / one[0].id
    assert torch.equal(one[0].read(), read_image(path)) and one[0].key == content_hash(path)


def test_given_comes_first_and_brings_its_prompt(database, retriever):
    given = database / "images" / "a.png"
    (reference,) = find(database, "b.png", retriever=retriever, given=given)
    assert (reference.id, reference.prompt) == (str(given), "a wall")
    finder = ReferenceFinder(given=given)
    first, again = (finder.find(torch.rand(3, 4, 4), database / "images" / n)[0] for n in ("b.png", "c.png"))
    assert first.read() is again.read()  # read once
    # A folder gives every photograph the file of its own name: the table's "HQRef".
    (own,) = find(database, "c.png", given=database / "images")
    assert own.id.endswith("c.png")


def test_kinds_of_table_6(database, retriever):
    assert find(database, retriever=retriever, kind="none") == []
    assert find(database) == []
    lq = read_image(database / "images" / "a.png")
    (self_reference,) = find(database, kind="self", scale=2)
    assert torch.equal(self_reference.read(), resize_bicubic(lq[None], (48, 48))[0])
    drawn = [find(database, f"{n}.png", retriever=retriever, kind="random")[0].id for n in "abcdef"]
    assert all(f"{n}.png" != i for n, i in zip("abcdef", drawn, strict=True))
    assert len(set(drawn)) > 1
    again = [find(database, f"{n}.png", retriever=retriever, kind="random")[0].id for n in "abcdef"]
    assert drawn == again


@pytest.mark.parametrize(
    ("settings", "is_empty"),
    [({}, True), ({"kind": "none", "given": "x"}, True), ({"kind": "self"}, False)],
)
def test_it_is_known_beforehand_whether_anything_will_be_found(settings, is_empty):
    assert ReferenceFinder(**settings).is_empty is is_empty


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "best"}, "reference_kind='best'"),
        ({"kind": "random"}, "give index="),
        ({"k": 0}, "references=0"),
        ({"k": "three"}, "references=three"),
        ({"temperature": 0}, "temperature=0"),
        ({"max_score": "high"}, "max_score=high"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(RasrError, match=message):
        ReferenceFinder(**settings)


def test_a_given_file_that_is_no_image_shows_at_once(tmp_path):
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageReadError, match=r"text\.png"):
        ReferenceFinder(given=tmp_path / "text.png")
