"""DiffAugment: reproducible, different per image, each part within its limits, differentiable."""

import pytest
import torch

from rasr.models import diff_augment as module
from rasr.models.diff_augment import GREY, diff_augment


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(4, 3, 16, 24)


def test_changes_images_the_same_way_for_the_same_seed(images):
    torch.manual_seed(3)
    first = diff_augment(images)
    torch.manual_seed(3)
    assert torch.equal(diff_augment(images), first)
    assert not torch.equal(diff_augment(images), first)
    assert first.shape == images.shape
    assert all(not torch.equal(a, b) for a, b in zip(first, images, strict=True))


def test_every_image_has_its_own(images):
    same = images[:1].expand(4, -1, -1, -1)
    augmented = diff_augment(same)
    assert not any(torch.equal(augmented[0], other) for other in augmented[1:])


def test_colour_keeps_the_image_up_to_affine_changes(images):
    for image in images:
        changed = module._change_colour(image)
        # Differences between positions of the mean channel are only scaled, by the contrast.
        grey, before = changed.mean(0), image.mean(0)
        ratio = (grey - grey.mean()).norm() / (before - before.mean()).norm()
        assert 0.5 - 1e-4 <= ratio <= 1.5 + 1e-4
        assert (grey.mean() - before.mean()).abs() <= 0.25 + 1e-5
    chroma = [(i - i.mean(0)).norm() for i in (image, changed)]
    assert chroma[1] <= 2 * 1.5 * chroma[0] + 1e-4


def test_translation_shifts_by_at_most_an_eighth_and_fills_with_grey(images):
    for _ in range(30):
        moved = module._translate(images[0])
        candidates = []
        for down in range(-2, 3):
            for right in range(-3, 4):
                expected = torch.full_like(moved, GREY)
                rows = slice(max(down, 0), 16 + min(down, 0))
                columns = slice(max(right, 0), 24 + min(right, 0))
                source = images[0, :, max(-down, 0) : 16 - max(down, 0), max(-right, 0) : 24 - max(right, 0)]
                expected[:, rows, columns] = source
                candidates.append(torch.equal(moved, expected))
        assert sum(candidates) == 1


def test_cutout_paints_at_most_a_half_by_a_half(images):
    sizes = set()
    for _ in range(50):
        painted = module._cutout(images[0])
        covered = (painted == GREY).all(0)
        rows, columns = covered.any(1).sum().item(), covered.any(0).sum().item()
        assert 0 < rows <= 8 and 0 < columns <= 12
        assert covered.sum() == rows * columns  # a rectangle
        assert torch.equal(painted[:, ~covered], images[0][:, ~covered])
        sizes.add((rows, columns))
    assert (8, 12) in sizes and len(sizes) > 5


def test_gradient_against_finite_differences():
    images = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def function(x):
        torch.manual_seed(0)
        return diff_augment(x)

    assert torch.autograd.gradcheck(function, images)
