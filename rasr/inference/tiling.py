"""Large canvases in overlapping tiles of one size, blended without seams.

Attention costs grow with the square of the area: a canvas of a few megapixels is only possible in tiles. A
canvas that fits one tile is passed through untouched.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def run_tiled(function: Callable[[Tensor], Tensor], canvas: Tensor, *, tile: int, overlap: int) -> Tensor:
    """Applies `function`, which keeps the size, tile by tile, in the order of `tile_windows`.

    Args:
        function: (1, 3, t_h, t_w) -> (1, 3, t_h, t_w); sees tiles of one size only.
        canvas: (1, 3, H, W).
        tile: side of a tile in pixels; a side of the canvas that is shorter is taken whole.
        overlap: pixels that neighbours share at least, blended linearly; below `tile`.

    Returns:
        (1, 3, H, W), float32.
    """
    windows = tile_windows(tuple(canvas.shape[-2:]), tile=tile, overlap=overlap)
    if len(windows) == 1:
        return function(canvas).float()
    height, width = (min(tile, side) for side in canvas.shape[-2:])
    weights = blend_weights(height, overlap)[:, None] * blend_weights(width, overlap)
    weights = weights.to(canvas.device)
    total = torch.zeros(canvas.shape, device=canvas.device)
    norm = torch.zeros(canvas.shape[-2:], device=canvas.device)
    for rows, columns in windows:
        window = (..., rows, columns)
        total[window] += weights * function(canvas[window]).float()
        norm[window] += weights
    return total / norm


def tile_windows(size: tuple[int, int], *, tile: int, overlap: int) -> list[tuple[slice, slice]]:
    """The tiles of a canvas (H, W) as (rows, columns), row by row; one if the canvas fits a tile."""
    height, width = (min(tile, side) for side in size)
    return [
        (slice(top, top + height), slice(left, left + width))
        for top in tile_starts(size[0], height, overlap)
        for left in tile_starts(size[1], width, overlap)
    ]


def tile_starts(length: int, tile: int, overlap: int) -> list[int]:
    """Where tiles begin, so that they cover `length` and neighbours share at least `overlap`."""
    if length == tile:
        return [0]
    return [*range(0, length - tile, tile - overlap), length - tile]


def blend_weights(tile: int, overlap: int) -> Tensor:
    """(tile,) weights in (0, 1]: 1 inside, falling linearly over `overlap` pixels at both ends."""
    distance = torch.arange(1, tile + 1).minimum(torch.arange(tile, 0, -1)).float()
    return (distance / (overlap + 1)).clamp(max=1)
