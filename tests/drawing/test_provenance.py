"""The picture of where detail comes from."""

import torch

from rasr.drawing import draw_provenance
from rasr.drawing.provenance import place_colours
from rasr.fusion.provenance import Provenance
from rasr.image_io import read_image


def test_the_picture_shows_result_places_and_references(tmp_path):
    strength = torch.zeros(8, 8)
    strength[:, 4:] = 1
    draw_provenance(
        tmp_path / "p.png",
        torch.rand(3, 32, 32),
        Provenance(strength[None], torch.zeros(1, 8, 8), torch.rand(1, 2, 8, 8)),
        [torch.rand(3, 20, 40)] * 2,
    )
    picture = read_image(tmp_path / "p.png")
    assert picture.shape[-1] > 5 * 512  # result, its origin, and two pictures of each reference


def test_corners_have_colours_of_their_own():
    corners = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 1.0, 1.0]]).reshape(2, 2, 2)
    colours = place_colours(corners).flatten(1).T
    distance = torch.cdist(colours, colours) + torch.eye(4)
    assert distance.min() > 0.3
