"""Patch mode: one large image contributes several overlapping crops, each an entry of its own."""

import math

from torch import Tensor

from rasr.errors import RasrError
from rasr.retrieval.payload import Box


def check_patches(size: int, overlap: int) -> dict[str, int]:
    """Check the two numbers and return them as the index keeps them."""
    are_whole = isinstance(size, int) and isinstance(overlap, int)
    if not are_whole or size < 1 or not 0 <= overlap < size:
        raise RasrError(
            f"patch_size={size} patch_overlap={overlap}: the overlap must be 0 or more and below the size"
        )
    return {"size": size, "overlap": overlap}


def patch_boxes(width: int, height: int, size: int, overlap: int) -> list[Box]:
    """Cover an image with squares.

    Args:
        width: of the image in pixels.
        height: likewise.
        size: side of the squares; a side of the image that is shorter limits it.
        overlap: pixels that neighbours share at least; they are spread evenly, the last ends at the border.

    Returns:
        (left, top, right, bottom) of each, by rows.
    """
    rows, columns = (_starts(length, size, overlap) for length in (height, width))
    return [(left, top, min(left + size, width), min(top + size, height)) for top in rows for left in columns]


def crop(image: Tensor, box: Box | None) -> Tensor:
    """Cut a box out of an image (3, H, W); None takes all of it."""
    if box is None:
        return image
    left, top, right, bottom = box
    return image[:, top:bottom, left:right]


def entry_id(image_id: str, box: Box | None) -> str:
    """The id of an entry: that of its image, with the box behind it in patch mode."""
    return image_id if box is None else f"{image_id}#{','.join(map(str, box))}"


def _starts(length: int, size: int, overlap: int) -> list[int]:
    if length <= size:
        return [0]
    count = math.ceil((length - size) / (size - overlap)) + 1
    return [round(number * (length - size) / (count - 1)) for number in range(count)]
