"""Comparison pictures: one row per image, one labelled column per method."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from rasr.image_io import atomic_path, to_uint8

_MARGIN = 20  # around the picture, pixels
_GAP = 10  # between the columns, pixels
_LABEL_SIZE, _CAPTION_SIZE = 16, 14  # font sizes, pixels
_TEXT_HEIGHT = 26  # a line of text with its air, pixels
_LABEL_COLOUR, _CAPTION_COLOUR = "#111111", "#555555"


@dataclass
class PanelCell:
    """One picture of the panel."""

    label: str
    """Above the picture; written once per column where all rows agree. ASCII: the font has little else."""
    image: Tensor
    """(3, H, W), RGB, in [0, 1]; any size."""
    caption: str = ""
    """Under the picture, such as the PSNR."""


def draw_panel(rows: list[list[PanelCell]], path: str | Path, *, cell_size: int = 256) -> None:
    """Draw the rows on white and save them as a PNG.

    Args:
        rows: the cells, row by row; rows may differ in length.
        path: the PNG to write.
        cell_size: side of the square that each picture is fitted into, pixels. Smaller pictures are enlarged
            without interpolation, so that their own pixels show; larger ones are shrunk with Lanczos.
    """
    if not rows or not all(rows):
        raise ValueError("a panel needs at least one row, and each row at least one cell")
    labels = [[cell.label for cell in row] for row in rows]
    columns = max(len(row) for row in rows)
    has_labels = [index == 0 or labels[index] != labels[index - 1] for index in range(len(rows))]
    heights = [_TEXT_HEIGHT * (1 + has_label) + cell_size for has_label in has_labels]

    width = 2 * _MARGIN + columns * cell_size + (columns - 1) * _GAP
    height = 2 * _MARGIN + sum(heights) + (len(rows) - 1) * _GAP
    canvas = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(canvas)
    top = _MARGIN
    for row, has_label, row_height in zip(rows, has_labels, heights, strict=True):
        image_top = top + _TEXT_HEIGHT * has_label
        for column, cell in enumerate(row):
            left = _MARGIN + column * (cell_size + _GAP)
            centre = left + cell_size // 2
            if has_label:
                _draw_text(draw, cell.label, centre, top, cell_size, _LABEL_SIZE, _LABEL_COLOUR)
            picture = _fit(cell.image, cell_size)
            offset = (cell_size - picture.width) // 2, (cell_size - picture.height) // 2
            canvas.paste(picture, (left + offset[0], image_top + offset[1]))
            caption_top = image_top + cell_size
            _draw_text(draw, cell.caption, centre, caption_top, cell_size, _CAPTION_SIZE, _CAPTION_COLOUR)
        top += row_height + _GAP
    with atomic_path(path) as temporary:
        canvas.save(temporary, format="PNG")


def _fit(image: Tensor, size: int) -> Image.Image:
    """Bring an image to `size` along its longer side, its proportions kept."""
    picture = Image.fromarray(to_uint8(image))
    ratio = size / max(picture.size)
    resample = Image.Resampling.NEAREST if ratio > 1 else Image.Resampling.LANCZOS
    return picture.resize([max(1, round(side * ratio)) for side in picture.size], resample)


def _draw_text(
    draw: ImageDraw.ImageDraw, text: str, centre: int, top: int, width: int, size: int, colour: str
) -> None:
    """Write one centred line; a text wider than `width` is cut with three dots."""
    font = ImageFont.load_default(size=size)
    shown = text
    while shown and draw.textlength(shown, font) > width:
        text = text[:-1]
        shown = text.rstrip() + "..." if text else ""
    draw.text((centre, top + _TEXT_HEIGHT // 2), shown, fill=colour, font=font, anchor="mm")
