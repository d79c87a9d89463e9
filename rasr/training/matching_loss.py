"""What correspondence fusion's descriptors learn from: places that are known to show the same."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.data.two_view import OUTSIDE
from rasr.fusion.correspondence import FINE_REACH
from rasr.fusion.matching import nearby_cosines, own_positions, resample
from rasr.fusion.transfer import PATCH

QUERIES = 512
"""Places of each pair that learn to match in one step."""


def places_on_grid(places: Tensor, size: torch.Size, factor: int) -> Tensor:
    """Correspondences (B, 2, S/4, S/4), in pixels, on the grid of the latents.

    Returns:
        (B, 2, h, w), (x, y) in tokens of the latents; far outside where the reference does not show it.
    """
    if places.shape[-2:] != size:
        mode = "bilinear" if size[0] < places.shape[-1] else "nearest"
        places = F.interpolate(places, size, mode=mode)
    return places / factor - 0.5


def match_error(found: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Distance in pixels (B, S/4, S/4) between found and true places, and where there is a true one.

    Args:
        found: (B, 2, S/4, S/4), as a share of the reference's sides.
        places: (B, 2, S/4, S/4) in pixels, `OUTSIDE` where there is none (`rasr.data.two_view`).
    """
    side = PATCH * places.shape[-1]
    return (found * side - places).norm(dim=1), (places > OUTSIDE / 2).all(1)


def coarse_loss(queries: Tensor, keys: Tensor, scale: Tensor, places: Tensor) -> Tensor:
    """InfoNCE over all places of the reference, at half the latents' resolution.

    Args:
        queries: (B, D, h/2, w/2).
        keys: likewise, of the references.
        scale: on cosines.
        places: (B, 2, h, w), see `places_on_grid`.
    """
    shown = (places > -2).all(1)
    target = (F.avg_pool2d(places, 2) + 0.5) / 2 - 0.5
    is_whole = F.avg_pool2d(shown.float()[:, None], 2)[:, 0] == 1
    height, width = keys.shape[-2:]
    losses = []
    for b in range(len(queries)):
        t = target[b].flatten(1)
        inside = (t[0] > 0) & (t[1] > 0) & (t[0] < width - 1) & (t[1] < height - 1) & is_whole[b].flatten()
        chosen = inside.nonzero()[:, 0]
        if len(chosen) < 16:
            continue
        chosen = chosen[torch.randperm(len(chosen), device=chosen.device)[:QUERIES]]
        logits = scale * (queries[b].flatten(1)[:, chosen].T @ keys[b].flatten(1))
        losses.append(_bilinear_cross_entropy(logits, t[:, chosen], width))
    return torch.stack(losses).mean() if losses else (queries.sum() + keys.sum() + scale) * 0


def fine_loss(queries: Tensor, keys: Tensor, scale: Tensor, places: Tensor) -> Tensor:
    """InfoNCE over the places near a match that is off by up to two tokens, as the coarse one may be."""
    losses = []
    size = 2 * FINE_REACH + 1
    height, width = queries.shape[-2:]
    for b in range(len(queries)):
        place = places[b]
        shown = (place > 0).all(0) & (place[0] < keys.shape[-1] - 1) & (place[1] < keys.shape[-2] - 1)
        off = (torch.rand(2, device=place.device) * 4 - 2)[:, None, None]
        displacement = place - own_positions(height, width, place) + off
        cosines = nearby_cosines(queries[b], resample(keys[b], displacement), FINE_REACH)
        # Where the laid-over reference shows the place that is looked for: the offset, turned into the
        # photograph's grid by the inverse of the map's Jacobian.
        jx = (place[:, :, 2:] - place[:, :, :-2]) / 2
        jy = (place[:, 2:] - place[:, :-2]) / 2
        jx, jy = jx[:, 1:-1], jy[:, :, 1:-1]
        determinant = jx[0] * jy[1] - jy[0] * jx[1]
        ox, oy = off.flatten()
        step = -torch.stack([jy[1] * ox - jy[0] * oy, jx[0] * oy - jx[1] * ox]) / determinant
        inner = shown[1:-1, 1:-1] & shown[:-2, 1:-1] & shown[2:, 1:-1] & shown[1:-1, :-2] & shown[1:-1, 2:]
        inner = inner & (step.abs() < FINE_REACH - 0.01).all(0) & (determinant > 0.3)
        chosen = inner.flatten().nonzero()[:, 0]
        if len(chosen) < 16:
            continue
        logits = scale * cosines[:, 1:-1, 1:-1].flatten(1)[:, chosen].T
        target = step.flatten(1)[:, chosen] + FINE_REACH
        losses.append(_bilinear_cross_entropy(logits, target, size))
    return torch.stack(losses).mean() if losses else (queries.sum() + keys.sum() + scale) * 0


def _bilinear_cross_entropy(logits: Tensor, target: Tensor, width: int) -> Tensor:
    """Cross-entropy to a place between tokens, shared by its four neighbours.

    Args:
        logits: (N, h * w).
        target: (2, N), (x, y) in tokens.
        width: w.
    """
    log_shares = logits.log_softmax(-1)
    low = target.floor()
    part, low = target - low, low.long()
    loss = 0
    for dy in (0, 1):
        for dx in (0, 1):
            share = (part[0] if dx else 1 - part[0]) * (part[1] if dy else 1 - part[1])
            index = (low[1] + dy) * width + low[0] + dx
            loss = loss - share * log_shares.gather(1, index[:, None])[:, 0]
    return loss.mean()
