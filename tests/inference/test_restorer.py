"""Restorer: any size in, four times the size out."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.image_ops import resize_bicubic
from rasr.inference import Restorer
from rasr.inference.color_fix import adain, wavelet
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
    sr = Restorer(net, color_fix="none", device="cpu").restore(lq, ref, prompt="a cat")
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


@pytest.mark.parametrize("own", ["none", "wavelet"])
def test_the_net_brings_its_color_fix(own):
    net = build_rasr_net(make_tiny_backbone(seed=0), color_fix=own).eval()
    lq = torch.rand(3, 16, 16)
    default, asked, other = (
        Restorer(net, color_fix=name, device="cpu").restore(lq) for name in (None, own, "adain")
    )
    assert torch.equal(default, asked)
    assert not torch.equal(default, other)


def test_color_fix_defaults_to_adain_on_the_image_without_its_padding(net):
    lq, ref = torch.rand(3, 17, 31), torch.rand(3, 64, 64)
    bare = Restorer(net, color_fix="none", device="cpu").restore(lq, ref)
    lq_up = resize_bicubic(lq[None], (68, 124))
    for name, fix in (("adain", adain), ("wavelet", wavelet)):
        sr = Restorer(net, color_fix=name, device="cpu").restore(lq, ref)
        assert not torch.equal(sr, bare)
        assert torch.equal(sr, fix(bare[None], lq_up)[0])
    default = Restorer(net, device="cpu").restore(lq, ref)
    assert torch.equal(default, Restorer(net, color_fix="adain", device="cpu").restore(lq, ref))


@pytest.mark.parametrize("size", [(8, 12), (12, 8), (9, 40)])
def test_small_image_is_processed_at_the_process_size(net, size):
    """Enlarged to a short side of 64 / 4 with its aspect, restored, and brought back to x4."""
    lq = torch.rand(3, *size)
    sr = Restorer(net, process_size=64, device="cpu").restore(lq)
    assert sr.shape == (3, 4 * size[0], 4 * size[1])
    enlarged = tuple(round(side * 16 / min(size)) for side in size)
    assert min(enlarged) == 16
    plain = Restorer(net, device="cpu")
    expected = plain.restore(resize_bicubic(lq[None], enlarged)[0])
    expected = resize_bicubic(expected[None], (4 * size[0], 4 * size[1]))[0]
    assert torch.equal(sr, expected)
    assert not torch.equal(sr, plain.restore(lq))


def test_process_size_counts_in_pixels_of_the_result(net):
    """An LR side of exactly process_size // scale is large enough; the minimum follows the scale."""
    lq = torch.rand(3, 16, 20)
    for scale, process_size in ((4, 64), (4, 67), (2, 32)):
        plain = Restorer(net, scale=scale, device="cpu").restore(lq)
        same = Restorer(net, scale=scale, process_size=process_size, device="cpu").restore(lq)
        assert torch.equal(plain, same)
    larger = Restorer(net, scale=2, process_size=64, device="cpu").restore(lq)
    assert not torch.equal(larger, Restorer(net, scale=2, device="cpu").restore(lq))
    # By default there is no minimum, whatever the size.
    assert Restorer(net, device="cpu").restore(torch.rand(3, 1, 2)).shape == (3, 4, 8)


def test_weights_that_are_no_numbers_are_one_line():
    net = build_rasr_net(make_tiny_backbone(seed=0))
    net.backbone.unet.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(RasrError, match="result is NaN: its weights are damaged"):
        Restorer(net.eval(), device="cpu").restore(torch.rand(3, 16, 16))


def test_wrong_settings_are_named(net):
    with pytest.raises(RasrError, match="scale=0"):
        Restorer(net, scale=0, device="cpu")
    with pytest.raises(RasrError, match="process_size=3"):
        Restorer(net, process_size=3, device="cpu")
    with pytest.raises(
        RasrError, match="color_fix='nofix' is unknown; give one of adain, wavelet, anchor, none"
    ):
        Restorer(net, color_fix="nofix", device="cpu")
    with pytest.raises(RasrError, match="'abacus'"):
        Restorer(net, device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(RasrError, match="no CUDA device"):
            Restorer(net, device="cuda")


def test_tiles_see_the_same_reference_and_meet_without_seams(net):
    lq, ref = torch.rand(3, 16, 48), torch.rand(3, 64, 64)
    tiled = Restorer(net, device="cpu", tile_size=64, tile_overlap=32, color_fix="none").restore(lq, ref)
    assert tiled.shape == (3, 64, 192)
    first = Restorer(net, device="cpu", color_fix="none").restore(lq[:, :, :16], ref)
    torch.testing.assert_close(
        tiled[..., :32], first[..., :32], atol=0.1, rtol=0
    )  # apart from the LR's border
    whole = Restorer(net, device="cpu", tile_size=None, color_fix="none").restore(lq, ref)
    assert not torch.equal(tiled, whole)
    fitting = Restorer(net, device="cpu", tile_size=192, color_fix="none").restore(lq, ref)
    assert torch.equal(fitting, whole)


@pytest.mark.slow
def test_a_large_photograph_is_restored(net):
    """300x1000 is 4.8 megapixels after x4: without tiles, attention would take hours."""
    restorer = Restorer(net, device="cpu", tile_size=128, tile_overlap=32)
    sr = restorer.restore(torch.rand(3, 300, 1000), torch.rand(3, 100, 100))
    assert sr.shape == (3, 1200, 4000)
    assert torch.isfinite(sr).all()


@pytest.mark.parametrize("tiles", [{"tile_size": 100}, {"tile_size": 64, "tile_overlap": 64}])
def test_impossible_tiles_are_named(net, tiles):
    with pytest.raises(RasrError, match="tile_size="):
        Restorer(net, device="cpu", **tiles)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"scale": 0}, "scale=0 is not a whole number of at least 1"),
        ({"scale": 2.5}, "scale=2.5 is not a whole number"),
        ({"tile_size": "x"}, "tile_size=x is not a whole number"),
        ({"tile_overlap": -1}, "tile_overlap=-1 is not a whole number of at least 0"),
        ({"process_size": 2}, "process_size=2 is below scale=4"),
        ({"conditioning_scale": float("nan")}, "conditioning_scale=nan is not a finite number"),
        ({"conditioning_scale": "strong"}, "conditioning_scale=strong is not a finite number"),
    ],
)
def test_impossible_settings_are_named(net, keys, message):
    with pytest.raises(RasrError, match=message):
        Restorer(net, device="cpu", **keys)
