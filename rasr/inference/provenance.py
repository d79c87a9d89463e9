"""Where a result's detail comes from: the maps of tiles joined."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rasr.fusion.provenance import Provenance


def join_provenance(
    maps: Sequence[Provenance], windows: Sequence[tuple[slice, slice]], size: tuple[int, int]
) -> Provenance:
    """The provenance of a whole result from those of its tiles; where tiles overlap, the surer one counts.

    Args:
        maps: of each tile, in the order of `windows`.
        windows: (rows, columns) of each tile in pixels.
        size: (H, W) of the result without its padding; it need not be a multiple of the maps' cells.
    """
    rows, _ = windows[0]
    cell = (rows.stop - rows.start) // maps[0].strength.shape[-2]
    height, width = (-(-max(w[axis].stop for w in windows) // cell) for axis in (0, 1))
    strength = torch.full((1, height, width), -1.0)
    reference = torch.zeros(1, height, width, dtype=torch.int64)
    place = torch.zeros(1, 2, height, width)
    for tile, (down, across) in zip(maps, windows, strict=True):
        part = (
            ...,
            slice(down.start // cell, down.stop // cell),
            slice(across.start // cell, across.stop // cell),
        )
        is_surer = tile.strength.cpu() > strength[part]
        strength[part] = torch.where(is_surer, tile.strength.cpu(), strength[part])
        reference[part] = torch.where(is_surer, tile.reference.cpu(), reference[part])
        place[part] = torch.where(is_surer[:, None], tile.place.cpu(), place[part])
    cut = (..., slice(-(-size[0] // cell)), slice(-(-size[1] // cell)))
    return Provenance(strength[cut], reference[cut], place[cut])
