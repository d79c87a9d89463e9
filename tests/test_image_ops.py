"""Resizing and padding."""

import pytest
import torch

from rasr.image_ops import cover_and_crop, pad_to_multiple, resize_bicubic


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (64, 64), (65, 3)])
def test_padding_reaches_the_multiple_and_keeps_the_image(size):
    image = torch.rand(1, 3, *size)
    padded = pad_to_multiple(image, 64)
    assert all(side % 64 == 0 and side - old < 64 for side, old in zip(padded.shape[-2:], size, strict=True))
    assert torch.equal(padded[..., : size[0], : size[1]], image)


def test_padding_mirrors_then_repeats():
    row = torch.tensor([1.0, 2.0, 3.0]).expand(1, 3, 1, 3)
    assert pad_to_multiple(row, 8)[0, 0, 0].tolist() == [1, 2, 3, 2, 1, 1, 1, 1]


def test_a_fitting_image_is_left_alone():
    image = torch.rand(1, 3, 64, 128)
    assert pad_to_multiple(image, 64) is image
    assert resize_bicubic(image, (64, 128)) is image


def test_bicubic_stays_in_range_and_keeps_flat_colour():
    checker = (torch.arange(64).view(8, 8) % 2).float().expand(1, 3, 8, 8)
    up = resize_bicubic(checker, (32, 32))
    assert up.min() >= 0 and up.max() <= 1
    flat = resize_bicubic(torch.full((1, 3, 8, 8), 0.3), (3, 29))
    torch.testing.assert_close(flat, torch.full((1, 3, 3, 29), 0.3))


def test_cover_and_crop_keeps_the_aspect_and_takes_the_centre():
    image = torch.zeros(1, 3, 40, 80)
    image[..., 30:50] = 1  # a centred square of full height stays; its white band is 20 of 40 columns
    cut = cover_and_crop(image, (40, 40))
    assert cut.shape[-2:] == (40, 40)
    assert torch.equal(cut, image[..., 20:60])
    assert cover_and_crop(image, (64, 200)).shape[-2:] == (64, 200)
    assert cover_and_crop(torch.rand(1, 3, 1, 1), (32, 64)).shape[-2:] == (32, 64)


@pytest.mark.parametrize("size", [(64, 96), (33, 50), (5, 3)])
def test_local_mean_keeps_what_is_smooth(size):
    from rasr.image_ops import local_mean

    flat = torch.full((2, 3, *size), 0.4)
    torch.testing.assert_close(local_mean(flat, cell=4, radius=2), flat)
    if min(size) > 40:
        slope = torch.linspace(0, 1, size[1]).expand(1, 1, *size)
        inner = (..., slice(28, -28))
        torch.testing.assert_close(
            local_mean(slope, cell=4, radius=2)[inner], slope[inner], atol=1e-3, rtol=0
        )
    noise = torch.randn(1, 1, *size)
    assert local_mean(noise, cell=4, radius=2).var() < 0.2 * noise.var() + 0.1
