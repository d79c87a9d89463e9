"""Tiles cover the canvas, blend without seams, and leave a fitting canvas alone."""

import itertools

import pytest
import torch

from rasr.inference.tiling import blend_weights, run_tiled, tile_starts


@pytest.mark.parametrize(
    ("length", "tile", "overlap"), [(64, 64, 16), (65, 64, 16), (300, 64, 16), (112, 64, 16)]
)
def test_tiles_cover_and_overlap(length, tile, overlap):
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0 and starts[-1] == length - tile
    assert all(0 < b - a <= tile - overlap for a, b in itertools.pairwise(starts))


def test_weights_are_positive_and_symmetric():
    weights = blend_weights(64, 16)
    assert weights.min() > 0 and weights.max() == 1
    assert torch.equal(weights, weights.flip(0))
    assert (weights == 1).sum() == 64 - 2 * 16
    assert torch.equal(blend_weights(8, 0), torch.ones(8))


@pytest.mark.parametrize("size", [(64, 64), (32, 200), (150, 97)])
def test_pointwise_functions_do_not_notice_tiles(size):
    canvas = torch.rand(1, 3, *size)
    done = run_tiled(lambda x: 0.5 * x + 0.1, canvas, tile=64, overlap=16)
    torch.testing.assert_close(done, 0.5 * canvas + 0.1)


def test_every_tile_has_one_size_and_a_fitting_canvas_is_one():
    sizes = []
    run_tiled(
        lambda x: sizes.append(tuple(x.shape[-2:])) or x, torch.rand(1, 3, 40, 200), tile=64, overlap=16
    )
    assert set(sizes) == {(40, 64)} and len(sizes) == 4
    sizes.clear()
    canvas = torch.rand(1, 3, 64, 48)
    assert torch.equal(run_tiled(lambda x: sizes.append(0) or x, canvas, tile=64, overlap=16), canvas)
    assert len(sizes) == 1


def test_disagreeing_tiles_are_blended_without_a_step():
    """Each tile a constant of its own: the seam becomes a ramp as wide as the overlap."""
    values = iter([0.0, 1.0])
    done = run_tiled(
        lambda x: torch.full_like(x, next(values)), torch.rand(1, 3, 64, 112), tile=64, overlap=16
    )
    row = done[0, 0, 10]
    assert row[0] == 0 and row[-1] == 1
    assert row.diff().max() < 2 / 16
