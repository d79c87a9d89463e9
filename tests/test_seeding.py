import pytest

from rasr.seeding import SampleRandom, sample_seed


def test_seeds_are_the_same_on_every_machine():
    # Computed once, on CPython 3.11: a change here changes every run.
    assert sample_seed(0, 3, "train/cat/1.png") == 8348985797709886730
    assert all(0 <= sample_seed(n) < 2**63 for n in range(1000))


def test_every_part_counts():
    parts = [(0, 1, "a"), (1, 1, "a"), (0, 2, "a"), (0, 1, "b"), (0, 1), ("0", 1, "a"), (0, 1, "a", "")]
    parts += [(1, 0, "a"), ("ab",), ("a", "b"), ("a", "b", "")]
    assert len({sample_seed(*part) for part in parts}) == len(parts)


def test_streams_repeat_by_seed_and_stay_in_range():
    def draws(seed):
        rng = SampleRandom(seed)
        return [
            rng.uniform(2, 3),
            rng.integer(5),
            rng.choice("abc"),
            rng.choice("abc", (0, 0, 1)),
            rng.chance(0.5),
        ]

    assert draws(7) == draws(7) != draws(8)
    many = [draws(seed) for seed in range(200)]
    assert all(2 <= uniform < 3 for uniform, *_ in many)
    assert {integer for _, integer, *_ in many} == set(range(5))
    assert {letter for _, _, letter, *_ in many} == set("abc")
    assert {draw[3] for draw in many} == {"c"}


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_chance(probability):
    rng = SampleRandom(1)
    assert sum(rng.chance(probability) for _ in range(2000)) / 2000 == pytest.approx(probability, abs=0.04)
