"""Pairs of views: their correspondences are right, and the same on every run."""

import pytest
import torch
import torch.nn.functional as F

from rasr.data.manifest import Row, write_manifest
from rasr.data.two_view import OUTSIDE, TwoViewDataset, ViewRange, make_view
from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.seeding import SampleRandom

SIZE = 64
PLAIN = ViewRange(far=0, other=0, occluder=0)


def smooth_photo(height=120, width=160, seed=0):
    noise = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0]


@pytest.mark.parametrize("seed", range(6))
def test_places_show_the_same(seed):
    photo = smooth_photo()
    top, left = 20, 40
    view, places = make_view(photo, (top, left), SIZE, PLAIN, SampleRandom(seed))
    shown = places[0] > OUTSIDE / 2
    assert shown.float().mean() > 0.2
    grid = (places / SIZE * 2 - 1).permute(1, 2, 0)[None]
    there = F.grid_sample(view[None], grid, align_corners=False)[0][:, shown]
    here = F.avg_pool2d(photo[None, :, top : top + SIZE, left : left + SIZE], 4)[0][:, shown]
    # The exposure differs, the content does not.
    assert torch.corrcoef(torch.stack([there.flatten(), here.flatten()]))[0, 1] > 0.97


def test_views_differ_and_are_repeatable():
    photo = smooth_photo()
    first, places = make_view(photo, (20, 40), SIZE, PLAIN, SampleRandom(1))
    again, places_again = make_view(photo, (20, 40), SIZE, PLAIN, SampleRandom(1))
    other, _ = make_view(photo, (20, 40), SIZE, PLAIN, SampleRandom(2))
    assert torch.equal(first, again) and torch.equal(places, places_again)
    assert (first - other).abs().mean() > 0.01
    assert (first - photo[:, 20 : 20 + SIZE, 40 : 40 + SIZE]).abs().mean() > 0.01


def test_what_is_covered_corresponds_to_nothing():
    photo = smooth_photo()
    covered = ViewRange(far=0, other=0, occluder=1)
    shares = []
    for limits in (PLAIN, covered):
        shares.append(
            sum(
                (make_view(photo, (20, 40), SIZE, limits, SampleRandom(s))[1][0] > 0).float().mean()
                for s in range(8)
            )
        )
    assert shares[1] < shares[0]


@pytest.fixture
def manifest(tmp_path):
    rows = []
    for i in range(3):
        write_png(smooth_photo(seed=i), tmp_path / f"{i}.png")
        rows.append(Row(f"{i}.png", "train", "cats"))
    write_manifest(tmp_path / "manifest.csv", rows)
    return tmp_path / "manifest.csv"


def test_the_pool_is_the_same_in_every_epoch(manifest):
    pairs = TwoViewDataset(manifest, split="train", views=2, gt_size=SIZE, seed=3)
    assert len(pairs) == 6
    first, later = pairs[(0, 4)], pairs[(7, 4)]
    assert all(torch.equal(first[k], later[k]) for k in ("gt", "ref", "places"))
    assert first["sample_id"] == "1.png#1" and first["seed"] == later["seed"]
    assert not torch.equal(pairs[1]["gt"], pairs[4]["gt"])  # two views of one photograph


def test_another_of_the_category_corresponds_to_nothing(manifest):
    always = ViewRange(other=1)
    pair = TwoViewDataset(manifest, split="train", views=1, gt_size=SIZE, seed=0, view_range=always)[0]
    assert (pair["places"] == OUTSIDE).all()


def test_sizes_that_do_not_fit_are_named(manifest):
    with pytest.raises(RasrError, match="multiple of 4"):
        TwoViewDataset(manifest, split="train", views=1, gt_size=62, seed=0)
    with pytest.raises(RasrError, match=r"data\.views"):
        TwoViewDataset(manifest, split="train", views=0, gt_size=64, seed=0)
