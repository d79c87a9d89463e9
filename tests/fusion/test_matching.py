"""Matches and motions with known answers."""

import pytest
import torch
import torch.nn.functional as F

from rasr.fusion.matching import is_inside, match_everywhere, match_nearby, own_positions, resample
from rasr.fusion.motion import smooth_motion


def descriptors(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(16, height, width, generator=generator), dim=0)


def test_a_shifted_reference_is_found_and_its_border_is_known():
    keys = descriptors(12, 20)
    queries = keys[:, 3:11, 5:15]  # what the photograph shows lies 5 to the right, 3 below
    matches = match_everywhere(queries, keys, 50.0)
    expected = torch.tensor([5.0, 3.0])[:, None, None].expand(2, 8, 10)
    torch.testing.assert_close(matches.displacement, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(matches.score, torch.ones(8, 10))
    assert matches.mass.min() > 0.99 and matches.mutual.min() > 0.99


def test_chunks_change_nothing(monkeypatch):
    queries, keys = descriptors(9, 7, 1), descriptors(8, 11, 2)
    whole = match_everywhere(queries, keys, 10.0)
    monkeypatch.setattr("rasr.fusion.matching.CHUNK_BYTES", 4 * 88 * 5)  # five rows at a time
    parts = match_everywhere(queries, keys, 10.0)
    for name in ("displacement", "score", "mass", "mutual"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))


def test_a_match_that_is_wanted_elsewhere_is_not_mutual():
    keys = descriptors(4, 4)
    queries = keys.clone()
    queries[:, 0, 0] = F.normalize(keys[:, 2, 2] + 0.8 * queries[:, 0, 0], dim=0)
    mutual = match_everywhere(queries, keys, 50.0).mutual
    assert mutual[0, 0] < 0.5 < mutual[3, 3]


def test_nearby_finds_the_rest():
    keys = descriptors(10, 10)
    laid = torch.roll(keys, (1, -2), (1, 2))  # what belongs at (y, x) lies at (y + 1, x - 2)
    found = match_nearby(keys, laid, 50.0, radius=3)
    inner = found.displacement[:, 3:-3, 3:-3]
    expected = torch.tensor([-2.0, 1.0])[:, None, None].expand_as(inner)
    torch.testing.assert_close(inner, expected, atol=1e-3, rtol=0)


def test_resample_follows_the_displacement():
    image = own_positions(6, 8, torch.zeros(()))
    displacement = torch.full((2, 6, 8), 1.0)
    laid = resample(image, displacement)
    torch.testing.assert_close(laid[:, :-1, :-1], image[:, :-1, :-1] + 1)
    inside = is_inside(displacement, (6, 8))
    assert inside[:-1, :-1].all() and not inside[-1].any() and not inside[:, -1].any()


def affine_motion(size):
    position = own_positions(size, size, torch.zeros(())) - size / 2
    return torch.einsum("ab,bhw->ahw", torch.tensor([[0.1, -0.15], [0.12, 0.05]]), position) + 2


@pytest.mark.parametrize("size", [24, 64])
def test_motion_survives_wrong_matches(size):
    true = affine_motion(size)
    generator = torch.Generator().manual_seed(0)
    single = true + 0.5 * torch.randn(true.shape, generator=generator)
    wrong = torch.rand(size, size, generator=generator) < 0.4
    random = size * torch.rand(true.shape, generator=generator) - size / 2
    single = torch.where(wrong, random, single)
    motion, agreement, _ = smooth_motion(single, torch.ones(size, size), (None, 8, 3))
    error = (motion - true).norm(dim=0)
    assert error.mean() < 0.15  # of single matches: 0.6, and 15 of the wrong ones
    assert 0.2 < agreement.mean() < 0.8


def test_a_thing_in_front_moves_by_itself():
    true = affine_motion(64)
    true[:, 20:44, 20:44] += 5
    single = true + 0.3 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    motion, _, _ = smooth_motion(single, torch.ones(64, 64), (None, 8, 3))
    error = (motion - true).norm(dim=0)
    assert error[26:38, 26:38].mean() < 0.5
    assert error[:12].mean() < 0.3


def test_no_trust_is_no_motion():
    single = 9 * torch.randn(2, 16, 16)
    motion, agreement, trust = smooth_motion(single, torch.zeros(16, 16), (None, 3))
    assert motion.isfinite().all() and motion.abs().max() < 1e-3
    assert agreement.abs().max() < 1e-3 and trust.abs().max() < 1e-3
