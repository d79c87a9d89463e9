"""Restorer: any size in, four times the size out."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.image_ops import resize_bicubic
from rasr.inference import Restorer
from rasr.models import build_rasr_net, make_tiny_backbone
from tests.helpers import wake_zero_convs


@pytest.fixture(scope="module")
def net():
    net = build_rasr_net(make_tiny_backbone(seed=0))
    wake_zero_convs(net)
    return net.eval()


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (30, 100)])
@pytest.mark.parametrize("ref_size", [None, (1, 1), (50, 33)])
def test_any_size(net, size, ref_size):
    ref = None if ref_size is None else torch.rand(3, *ref_size)
    sr = Restorer(net, device="cpu").restore(torch.rand(3, *size), ref)
    assert sr.shape == (3, 4 * size[0], 4 * size[1])
    assert sr.min() >= 0 and sr.max() <= 1


def test_fitting_image_is_the_net_itself(net):
    lq, ref = torch.rand(3, 16, 24), torch.rand(3, 64, 96)
    sr = Restorer(net, device="cpu").restore(lq, ref, prompt="a cat")
    lq_up = resize_bicubic(lq[None], (64, 96))
    with torch.inference_mode():
        expected = net(lq_up, ref[None], prompt=["a cat"], conditioning_scale=0.5)
    assert torch.equal(sr, expected[0])


def test_settings_change_the_result(net):
    lq, ref = torch.rand(3, 16, 16), torch.rand(3, 64, 64)
    default = Restorer(net, device="cpu").restore(lq, ref)
    assert torch.equal(default, Restorer(net, device="cpu").restore(lq, ref))
    assert not torch.equal(default, Restorer(net, device="cpu", conditioning_scale=1.0).restore(lq, ref))
    assert not torch.equal(default, Restorer(net, device="cpu").restore(lq, None))
    assert not torch.equal(default, Restorer(net, device="cpu").restore(lq, ref, prompt="a cat"))
    assert Restorer(net, device="cpu", scale=2).restore(lq, ref).shape == (3, 32, 32)


def test_wrong_settings_are_named(net):
    with pytest.raises(RasrError, match="scale=0"):
        Restorer(net, scale=0, device="cpu")
    with pytest.raises(RasrError, match="'abacus'"):
        Restorer(net, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(RasrError, match="no CUDA device"):
            Restorer(net, device="cuda")
