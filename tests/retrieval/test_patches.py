"""Crops cover the image, share what they should, and are named by their box."""

from itertools import pairwise

import numpy as np
import pytest
import torch

from rasr.errors import RasrError
from rasr.retrieval import check_patches
from rasr.retrieval.patches import crop, entry_id, patch_boxes


@pytest.mark.parametrize(
    ("width", "height", "size", "overlap"),
    [(1920, 1280, 768, 128), (768, 768, 768, 128), (500, 2000, 768, 0), (769, 100, 768, 767), (31, 17, 8, 3)],
)
def test_boxes_cover_the_image(width, height, size, overlap):
    seen = np.zeros((height, width), dtype=int)
    boxes = patch_boxes(width, height, size, overlap)
    for left, top, right, bottom in boxes:
        assert (right - left, bottom - top) == (min(size, width), min(size, height))
        seen[top:bottom, left:right] += 1
    assert seen.min() >= 1
    assert len(set(boxes)) == len(boxes)
    lefts = sorted({box[0] for box in boxes})
    assert all(after - before <= size - overlap for before, after in pairwise(lefts))


def test_number_of_crops_is_the_least_that_covers():
    assert len(patch_boxes(1408, 768, 768, 128)) == 2
    assert len(patch_boxes(1409, 768, 768, 128)) == 3
    assert patch_boxes(100, 50, 768, 128) == [(0, 0, 100, 50)]


def test_crop_and_name():
    image = torch.arange(3 * 4 * 5.0).view(3, 4, 5)
    torch.testing.assert_close(crop(image, (1, 2, 4, 3)), image[:, 2:3, 1:4])
    assert crop(image, None) is image
    assert entry_id("a/b.png", None) == "a/b.png"
    assert entry_id("a/b.png", (1, 2, 4, 3)) == "a/b.png#1,2,4,3"


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (8, 8), (8, -1)])
def test_impossible_crops_are_refused(size, overlap):
    with pytest.raises(RasrError, match=f"patch_size={size} patch_overlap={overlap}"):
        check_patches(size, overlap)
