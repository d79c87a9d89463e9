"""A picture of where a result's detail comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.drawing.panel import PanelCell, draw_panel
from rasr.fusion.provenance import TAKEN, Provenance, restored_share
from rasr.image_ops import resize_bicubic

PROVENANCE_FOLDER = "provenance"
"""Where these pictures lie, in a folder of results."""
LONG_SIDE = 512
"""Of the pictures in it, pixels."""


def draw_provenance(path: str | Path, sr: Tensor, provenance: Provenance, refs: Sequence[Tensor]) -> None:
    """Writes a PNG: the result, the same with every place in the colour of its origin, the references.

    A reference is tinted by place; a place of the result has the tint of where it came from, and is gray
    where nothing was taken.

    Args:
        path: the PNG.
        sr: (3, H, W) in [0, 1].
        provenance: of the whole result.
        refs: (3, h, w) in [0, 1], each of any size.
    """
    result = _fit(sr)
    size = result.shape[-2:]
    strength = F.interpolate(provenance.strength[None], size, mode="bilinear", align_corners=False)[0]
    place = F.interpolate(provenance.place, size, mode="nearest")[0]
    tint = place_colours(place)
    gray = result.mean(0, keepdim=True).expand(3, -1, -1)
    shown = gray * (1 - strength) + (0.45 * gray + 0.55 * tint) * strength
    share = 100 * restored_share(provenance)
    cells = [
        PanelCell("result", result),
        PanelCell("where its detail comes from", shown, f"{share:.0f} % from a reference"),
    ]
    for number, ref in enumerate(refs):
        picture = _fit(ref)
        height, width = picture.shape[-2:]
        y, x = torch.meshgrid(
            (torch.arange(height) + 0.5) / height, (torch.arange(width) + 0.5) / width, indexing="ij"
        )
        tinted = 0.45 * picture.mean(0, keepdim=True) + 0.55 * place_colours(torch.stack([x, y]))
        taken = (provenance.strength > TAKEN) & (provenance.reference == number)
        caption = f"gave {100 * taken.float().mean().item():.0f} % of the result"
        label = "reference" if len(refs) == 1 else f"reference {number + 1}"
        cells += [PanelCell(f"{label}, its places", tinted, caption), PanelCell(label, picture)]
    draw_panel([cells], path, cell_size=LONG_SIDE)


def place_colours(place: Tensor) -> Tensor:
    """A colour for each place (2, H, W) in [0, 1]: four different corners, mixed between them; (3, H, W)."""
    corners = torch.tensor([[0.9, 0.2, 0.2], [0.95, 0.8, 0.1], [0.2, 0.35, 0.95], [0.1, 0.8, 0.45]])
    x, y = place
    weights = torch.stack([(1 - x) * (1 - y), x * (1 - y), (1 - x) * y, x * y])
    return torch.einsum("nhw,nc->chw", weights, corners)


def _fit(image: Tensor) -> Tensor:
    factor = LONG_SIDE / max(image.shape[-2:])
    if factor >= 1:
        return image
    return resize_bicubic(image[None], tuple(max(1, round(side * factor)) for side in image.shape[-2:]))[0]
