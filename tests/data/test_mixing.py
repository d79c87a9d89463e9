from collections import Counter
from itertools import chain

import pytest
import torch

from rasr.data import ReferenceDataset, ResumableDistributedSampler
from rasr.data.mixing import MixedDataset, MixedOrder, Source, as_sources
from rasr.errors import RasrError
from rasr.image_io import write_png


def draw(order, epochs, seed=0):
    return [order.draw(epoch, seed=seed, shuffle=True) for epoch in range(epochs)]


def test_weights_are_shares_of_the_samples():
    order = MixedOrder([10, 60], [1, 2])
    assert order.counts == [30, 60] and len(order) == 90
    assert MixedOrder([60, 10], [1, 1]).counts == [60, 60]
    assert MixedOrder([5, 7]).counts == [5, 7]
    assert MixedOrder([100, 10], [0.9, 0.1]).counts == [100, 12]


def test_every_pass_over_a_set_holds_each_of_its_samples_once():
    order = MixedOrder([7, 25], [1, 1])
    pairs = Counter(chain(*draw(order, 9)))
    assert set(pairs.values()) == {1}  # no (pass, index) ever returns, over all epochs
    for indexes in (range(7), range(7, 32)):
        passes = Counter(turn for turn, index in pairs if index in indexes)
        whole = [turn for turn in passes if turn < max(passes)]
        assert len(whole) >= 8 and all(passes[turn] == len(indexes) for turn in whole)


def test_sets_are_mixed_within_an_epoch_and_by_seed_and_epoch():
    order = MixedOrder([50, 50], [1, 1])
    (first,) = draw(order, 1)
    starts = [sum(index < 50 for _, index in first[i : i + 20]) for i in range(0, 100, 20)]
    assert all(4 <= count <= 16 for count in starts)
    assert first == draw(order, 1)[0] != draw(order, 2)[1] and first != draw(order, 1, seed=1)[0]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_share_a_mixture_and_resume_in_it(world_size):
    order = MixedOrder([4, 10], [2, 1])

    def sampler(rank):
        return ResumableDistributedSampler(order, world_size=world_size, rank=rank, shuffle=True, seed=1)

    shares = [list(sampler(rank)) for rank in range(world_size)]
    assert len({len(share) for share in shares}) == 1
    assert set(chain(*shares)) == set(order.draw(0, seed=1, shuffle=True))
    running = sampler(0)
    head = [pair for pair, _ in zip(running, range(3), strict=False)]
    resumed = sampler(0)
    running.consumed = 3
    resumed.load_state_dict(running.state_dict())
    assert head + list(resumed) == shares[0]


def test_other_weights_cannot_resume_mid_epoch():
    def sampler(weights):
        return ResumableDistributedSampler(MixedOrder([4, 10], weights), shuffle=True, seed=1)

    running = sampler([1, 1])
    running.consumed = 3
    with pytest.raises(RasrError, match=r"counts was .*mix with the same weights"):
        sampler([2, 1]).load_state_dict(running.state_dict())


@pytest.fixture
def folders(tmp_path):
    for name, count in (("one", 2), ("two", 3)):
        for index in range(count):
            write_png(torch.rand(3, 12, 16), tmp_path / name / f"{name}{index}.png")
    return tmp_path


def open_set(path, **settings):
    return ReferenceDataset(path, split="train", gt_size=8, seed=0, **settings)


def test_a_mixed_data_set_gives_the_samples_of_its_parts(folders):
    parts = [open_set(folders / name, two_crops=True) for name in ("one", "two")]
    mixed = MixedDataset(parts)
    assert len(mixed) == 5 and mixed.has_references
    names = [mixed[0, index]["sample_id"] for index in range(5)]
    assert names == ["one0.png", "one1.png", "two0.png", "two1.png", "two2.png"]
    assert torch.equal(mixed[3, 2]["gt"], parts[1][3, 0]["gt"])
    mixed.set_epoch(3)
    assert mixed[2]["seed"] == parts[1][3, 0]["seed"] != mixed[0, 2]["seed"]


def test_parts_with_and_without_references_do_not_mix(folders):
    with pytest.raises(RasrError, match="data set 2 of 2 has no references and others have"):
        MixedDataset([open_set(folders / "one", two_crops=True), open_set(folders / "two")])


def test_sources_are_read_with_their_defaults():
    assert as_sources("a.csv", split="x") == [Source("a.csv", split="x")]
    given = [{"path": "a", "weight": 2}, {"path": "b", "split": "y", "two_crops": True}]
    assert as_sources(given, split="x", neighbours="n") == [
        Source("a", 2, "x", "n"),
        Source("b", 1, "y", "n", True),
    ]
    assert as_sources({"path": "a"}) == [Source("a")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "the list of data sets is empty"),
        ([{"weight": 1}], "has no path"),
        (["a.csv"], "'a.csv' has no path"),
        ([{"path": "a", "wieght": 1}], "data set a: unknown key 'wieght'"),
        ([{"path": "a", "weight": 0}], "weight=0 is not positive"),
    ],
)
def test_mistakes_in_sources_are_one_line(given, message):
    with pytest.raises(RasrError, match=message):
        as_sources(given)
