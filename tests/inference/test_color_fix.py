"""Colour fixes on photographs: colours come from the LR image, detail stays that of the restored one."""

import pytest
import torch
import torch.nn.functional as F
from skimage import data

from rasr.errors import RasrError
from rasr.image_ops import resize_bicubic
from rasr.inference.color_fix import COLOR_FIXES, adain, anchor, get_color_fix, low_pass, none, wavelet


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    """(2, 3, 96, 128): two crops of a photograph, kept away from black and white."""
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1).float() / 255
    return 0.2 + 0.6 * torch.stack([image[:, 60:156, 100:228], image[:, 150:246, 200:328]])


@pytest.fixture(scope="module")
def lq_up(photo) -> torch.Tensor:
    return resize_bicubic(resize_bicubic(photo, (24, 32)), (96, 128))


@pytest.mark.parametrize("fix", COLOR_FIXES.values(), ids=COLOR_FIXES)
def test_image_with_the_right_colours_is_left_alone(fix, photo):
    torch.testing.assert_close(fix(photo, photo), photo, atol=1e-6, rtol=0)


def test_adain_keeps_what_has_the_same_statistics(photo):
    """Mirroring changes the picture and keeps every channel's mean and deviation."""
    mirrored = photo.flip(-1)
    torch.testing.assert_close(adain(mirrored, photo), mirrored, atol=1e-5, rtol=0)


def test_adain_gives_each_channel_of_each_image_its_statistics(photo, lq_up):
    gain = torch.tensor([0.9, 1.1, 0.8]).view(3, 1, 1)
    shift = torch.tensor([[0.05, -0.1, 0.1], [-0.05, 0.0, 0.02]]).view(2, 3, 1, 1)
    fixed = adain((gain * photo + shift).clamp(0, 1), lq_up)
    for statistic in (torch.mean, torch.std):
        torch.testing.assert_close(
            statistic(fixed, dim=(-2, -1)), statistic(lq_up, dim=(-2, -1)), atol=2e-3, rtol=0
        )
    # An affine change of each channel is undone exactly.
    torch.testing.assert_close(adain(gain * photo + shift, photo), photo, atol=1e-3, rtol=0)


@pytest.mark.parametrize("fix", [adain, wavelet])
def test_colour_shift_is_removed(fix, photo):
    shift = torch.tensor([0.1, -0.1, 0.05]).view(3, 1, 1)
    torch.testing.assert_close(fix(photo + shift, photo), photo, atol=1e-5, rtol=0)


def test_wavelet_joins_high_and_low_frequencies(photo, lq_up):
    """Equal to the decomposition written out: details of sr, level by level, on what is left of lq_up."""
    kernel = torch.tensor([[1.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]) / 16

    def blur(images: torch.Tensor, radius: int) -> torch.Tensor:
        padded = F.pad(images.flatten(0, 1)[:, None], (radius,) * 4, mode="replicate")
        return F.conv2d(padded, kernel[None, None], dilation=radius).view_as(images)

    sr, details, rest = photo + 0.1, torch.zeros_like(photo), {}
    for name, images in (("sr", sr), ("lq_up", lq_up)):
        for level in range(5):
            blurred = blur(images, 2**level)
            if name == "sr":
                details += images - blurred
            images = blurred
        rest[name] = images
    torch.testing.assert_close(low_pass(lq_up), rest["lq_up"], atol=1e-6, rtol=0)
    expected = (details + rest["lq_up"]).clamp(0, 1)
    torch.testing.assert_close(wavelet(sr, lq_up), expected, atol=1e-5, rtol=0)


def test_high_frequencies_stay(photo, lq_up):
    """A checkerboard of single pixels passes the wavelet fix whole, and adain as a multiple."""
    rows, columns = torch.meshgrid(torch.arange(96), torch.arange(128), indexing="ij")
    checkers = 0.05 * ((rows + columns) % 2 * 2 - 1).float()
    inner = (..., slice(32, -32), slice(32, -32))  # the repeated edge is no checkerboard
    difference = wavelet(photo + checkers, lq_up) - wavelet(photo, lq_up)
    torch.testing.assert_close(difference[inner], checkers.expand_as(photo)[inner], atol=1e-5, rtol=0)
    fixed, sr = adain(photo, lq_up), photo
    for ours, theirs in zip(fixed.flatten(0, 1), sr.flatten(0, 1), strict=True):
        assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.9999


@pytest.mark.parametrize("fix", COLOR_FIXES.values(), ids=COLOR_FIXES)
@pytest.mark.parametrize("size", [(1, 1), (4, 4), (3, 50)])
def test_result_is_an_image_whatever_the_size(fix, size):
    noise, white = torch.rand(1, 3, *size), torch.ones(1, 3, *size)
    for sr, lq_up in ((noise, noise.flip(-1)), (noise, white), (0 * white, noise)):
        fixed = fix(sr, lq_up)
        assert fixed.shape == sr.shape
        assert fixed.min() >= 0 and fixed.max() <= 1


def test_names():
    assert [get_color_fix(name) for name in ("adain", "wavelet", "anchor", "none")] == [
        adain,
        wavelet,
        anchor,
        none,
    ]
    with pytest.raises(RasrError, match="give one of adain, wavelet, anchor, none"):
        get_color_fix("AdaIN")


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_anchor_keeps_flat_pictures_flat(level):
    flat = torch.full((1, 3, 64, 64), level)
    drifted = (flat + 0.1 * torch.randn(1, 3, 64, 64) - 0.03).clamp(0, 1)
    torch.testing.assert_close(anchor(drifted, flat), flat, atol=1e-5, rtol=0)


def test_anchor_keeps_a_smooth_slope():
    """A sky: every tile of it may come out a little different."""
    slope = torch.linspace(0.3, 0.6, 256).expand(1, 3, 64, 256)
    tiles = slope + torch.where(torch.arange(256) < 128, 0.02, -0.02)
    torch.testing.assert_close(anchor(tiles, slope)[..., 20:-20], slope[..., 20:-20], atol=1e-3, rtol=0)


def test_anchor_keeps_gray_gray(photo, lq_up):
    fixed = anchor(photo, lq_up.mean(1, keepdim=True).expand(-1, 3, -1, -1))
    assert (fixed - fixed.mean(1, keepdim=True)).abs().max() < 1e-6
    coloured = anchor(photo, lq_up)
    assert (coloured - coloured.mean(1, keepdim=True)).abs().max() > 0.1


def test_anchor_removes_a_shift_of_clean_photographs_and_trusts_noisy_ones_less(photo):
    shifted = photo + 0.05
    noisy = photo + 0.1 * torch.randn(photo.shape, generator=torch.Generator().manual_seed(0))
    assert (anchor(shifted, photo) - photo).abs().mean() < 0.01
    assert (anchor(shifted, noisy) - shifted).abs().mean() < 0.02
