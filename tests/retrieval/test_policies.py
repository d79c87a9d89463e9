"""Policies: always, threshold, random, given; and the weights of several references."""

import numpy as np
import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import read_image, write_png
from rasr.retrieval import (
    Always,
    ColorGradientEncoder,
    Given,
    Query,
    RandomReference,
    Retriever,
    build_index,
    softmax_weights,
)


@pytest.fixture
def retriever(tmp_path):
    for n in range(8):
        colour = torch.rand(3, 1, 1, generator=torch.Generator().manual_seed(n))
        write_png(colour.expand(3, 24, 24), tmp_path / "db" / f"c{n % 2}" / f"{n}.png")
    build_index(tmp_path / "db", tmp_path / "index", ColorGradientEncoder(), show_progress=False)
    with Retriever.open(tmp_path / "index") as retriever:
        yield retriever


@pytest.fixture
def query(tmp_path):
    file = tmp_path / "photo.png"
    write_png(torch.rand(3, 24, 24), file)
    return Query(read_image(file), file)


def test_always_takes_the_best_and_never_itself(retriever, query, tmp_path):
    hits = Always().choose(query, retriever, k=3)
    assert [hit.id for hit in hits] == [hit.id for hit in retriever.retrieve(query.image, 3)]
    own = tmp_path / "db" / "c0" / "2.png"
    hits = Always().choose(Query(read_image(own), own), retriever, k=8)
    assert len(hits) == 7
    assert "c0/2.png" not in {hit.id for hit in hits}
    assert {hit.category for hit in Always().choose(Query(query.image, query.path, "c1"), retriever, 8)} == {
        "c1"
    }
    barred = Query(query.image, query.path, exclude_ids=[hits[0].id])
    assert hits[0].id not in {hit.id for hit in Always().choose(barred, retriever, 8)}
    limit = retriever.retrieve(query.image, 2)[1].score
    assert Always(max_score=limit - 1e-4).choose(query, retriever)[0].score < limit - 1e-4


def test_random_is_the_same_again_and_differs_by_photograph_and_seed(retriever, query, tmp_path):
    first = RandomReference().choose(query, retriever, k=3)
    assert first == RandomReference().choose(query, retriever, k=3)
    assert len({hit.id for hit in first}) == 3
    by_id = {hit.id: hit.score for hit in retriever.retrieve(query.image, 8)}
    assert all(hit.score == pytest.approx(by_id[hit.id], abs=1e-4) for hit in first)
    seeds = {RandomReference(seed=seed).choose(query, retriever)[0].id for seed in range(20)}
    assert len(seeds) > 3
    drawn = set()
    for n in range(20):
        file = tmp_path / f"{n}.png"
        write_png(torch.rand(3, 4, 4), file)
        drawn.add(RandomReference().choose(Query(read_image(file), file), retriever)[0].id)
    assert len(drawn) > 3
    own = tmp_path / "db" / "c0" / "2.png"
    hits = RandomReference().choose(Query(read_image(own), own), retriever, k=99)
    assert len(hits) == 7
    hits = RandomReference().choose(Query(read_image(own), own, "c0"), retriever, k=99)
    assert {hit.id for hit in hits} == {"c0/0.png", "c0/4.png", "c0/6.png"}
    with pytest.raises(RasrError, match="'c9' is not in the index"):
        RandomReference().choose(Query(read_image(own), own, "c9"), retriever)


def test_given_is_one_for_all_or_one_of_the_same_name(query, tmp_path):
    write_png(torch.rand(3, 5, 5), tmp_path / "refs" / "photo.png")
    (tmp_path / "refs" / "photo.txt").write_text("a reference")
    for place in (tmp_path / "refs", tmp_path / "refs" / "photo.png"):
        (hit,) = Given(place).choose(query)
        assert (hit.path, hit.prompt, hit.score) == (tmp_path / "refs" / "photo.png", "a reference", 1.0)
    with pytest.raises(RasrError, match="no reference named other"):
        Given(tmp_path / "refs").choose(Query(query.image, tmp_path / "other.png"))
    with pytest.raises(RasrError, match="nowhere"):
        Given(tmp_path / "nowhere")


def test_softmax_weights():
    """ReFIR, appendix A: softmax of the cosines; three that are equal weigh a third each."""
    np.testing.assert_allclose(softmax_weights([0.5, 0.5, 0.5]), [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_allclose(softmax_weights([0.9, 0.4]), [0.6224593, 0.3775407], rtol=1e-6)
    sharp = softmax_weights([0.9, 0.8, 0.1], temperature=0.01)
    assert sharp.sum() == pytest.approx(1)
    assert sharp[0] > 0.999
    assert softmax_weights([0.9], temperature=1e-6).tolist() == [1]
    assert len(softmax_weights([])) == 0
    with pytest.raises(RasrError, match="temperature=0"):
        softmax_weights([1.0], temperature=0)
