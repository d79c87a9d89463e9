"""Provenance: of tiles joined, as a figure, and as a picture."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.fusion.provenance import Provenance, restored_share
from rasr.inference import Restorer
from rasr.inference.provenance import join_provenance
from rasr.inference.tiling import tile_windows
from rasr.models import build_rasr_net, make_tiny_backbone


def provenance(strength, number=0):
    height, width = strength.shape
    place = torch.rand(1, 2, height, width)
    return Provenance(strength[None], torch.full((1, height, width), number), place)


def test_tiles_are_joined_by_the_surer_one():
    windows = tile_windows((32, 48), tile=32, overlap=16)
    assert len(windows) == 2
    left, right = provenance(torch.full((8, 8), 0.3), 0), provenance(torch.full((8, 8), 0.7), 1)
    joined = join_provenance([left, right], windows, (30, 46))
    assert joined.strength.shape == (1, 8, 12) and joined.place.shape == (1, 2, 8, 12)
    assert (joined.reference[..., :4] == 0).all() and (joined.reference[..., 4:] == 1).all()
    assert torch.equal(joined.place[..., 4:], right.place)
    assert restored_share(joined) == pytest.approx(2 / 3)


def test_the_restorer_traces_the_whole_result_through_tiles():
    settings = {"head_width": 16, "transfer_width": 16}
    net = build_rasr_net(make_tiny_backbone(seed=0), fusion="correspondence", fusion_settings=settings)
    restorer = Restorer(net, tile_size=64, tile_overlap=16, device="cpu")
    traced = []
    sr = restorer.restore(torch.rand(3, 21, 30), torch.rand(3, 50, 70), traced=traced)
    (trace,) = traced
    assert sr.shape == (3, 84, 120)
    assert trace.strength.shape == (1, 21, 30)
    assert trace.strength.min() >= 0 and trace.strength.max() <= 1
    assert trace.place.min() >= 0 and trace.place.max() <= 1
    nothing = []
    restorer.restore(torch.rand(3, 21, 30), traced=nothing)
    assert nothing == []


def test_the_residual_branch_takes_one_and_traces_nothing():
    restorer = Restorer(build_rasr_net(make_tiny_backbone(seed=0)), device="cpu")
    ref, traced = torch.rand(3, 32, 32), []
    restorer.restore(torch.rand(3, 8, 8), ref, traced=traced)
    assert traced == []
    with pytest.raises(RasrError, match="fusion=residual takes 1"):
        restorer.restore(torch.rand(3, 8, 8), [ref, ref])
