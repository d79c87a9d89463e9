import pytest
import torch
from PIL import Image

from rasr.drawing import PanelCell, draw_panel
from rasr.image_io import read_image


def flat(level, height, width):
    return torch.full((3, height, width), level)


def is_white(image):
    return bool((image == 1).all())


def ink(image):
    """Number of dark pixels: text."""
    return int((image.mean(0) < 0.6).sum())


def test_one_row_has_labels_pictures_and_captions(tmp_path):
    rows = [[PanelCell("LR", flat(0.0, 8, 8), "22.10 dB"), PanelCell("GT", flat(0.5, 64, 64))]]
    draw_panel(rows, tmp_path / "deep" / "panel.png", cell_size=64)
    panel = read_image(tmp_path / "deep" / "panel.png")
    assert panel.shape == (3, 20 + 26 + 64 + 26 + 20, 20 + 64 + 10 + 64 + 20)
    header, pictures, captions = panel[:, 20:46], panel[:, 46:110], panel[:, 110:136]
    assert ink(header[:, :, 20:84]) > 10 and ink(header[:, :, 94:158]) > 10
    assert (pictures[:, :, 20:84] == 0).all()
    assert torch.allclose(pictures[:, :, 94:158], torch.tensor(128 / 255))
    assert ink(captions[:, :, 20:84]) > 10 and is_white(captions[:, :, 94:158])
    assert is_white(panel[:, :20]) and is_white(panel[:, -20:]) and is_white(pictures[:, :, 84:94])


def test_small_pictures_are_enlarged_without_interpolation(tmp_path):
    lq = torch.rand(3, 4, 4)
    draw_panel([[PanelCell("", lq)]], tmp_path / "a.png", cell_size=64)
    picture = read_image(tmp_path / "a.png")[:, 46:110, 20:84]
    levels = lq.mul(255).round().div(255)
    assert torch.equal(picture, levels.repeat_interleave(16, 1).repeat_interleave(16, 2))


def test_large_and_oblong_pictures_fit_into_the_cell(tmp_path):
    draw_panel([[PanelCell("", flat(0.0, 100, 200))]], tmp_path / "a.png", cell_size=64)
    picture = read_image(tmp_path / "a.png")[:, 46:110, 20:84]
    assert is_white(picture[:, :16]) and is_white(picture[:, 48:])
    assert (picture[:, 16:48] == 0).all()
    draw_panel([[PanelCell("", flat(0.0, 300, 1))]], tmp_path / "b.png", cell_size=64)


def test_shared_labels_are_written_once(tmp_path):
    def height(labels):
        rows = [[PanelCell(label, flat(0.5, 32, 32))] for label in labels]
        draw_panel(rows, tmp_path / "a.png", cell_size=32)
        with Image.open(tmp_path / "a.png") as image:
            return image.height

    assert height(["LR", "LR"]) == 40 + 26 + 2 * (32 + 26) + 10
    assert height(["LR", "GT"]) == 40 + 2 * (26 + 32 + 26) + 10


def test_long_text_stays_in_its_column(tmp_path):
    row = [PanelCell("W" * 60, flat(1.0, 32, 32), "W" * 60), PanelCell("", flat(1.0, 32, 32))]
    draw_panel([row], tmp_path / "a.png", cell_size=64)
    panel = read_image(tmp_path / "a.png")
    assert ink(panel[:, :, 20:84]) > 20
    assert is_white(panel[:, :, 86:]) and is_white(panel[:, :, :18])


@pytest.mark.parametrize("rows", [[], [[]]])
def test_nothing_to_draw(tmp_path, rows):
    with pytest.raises(ValueError, match="at least one"):
        draw_panel(rows, tmp_path / "a.png")
