"""Finding the place in a reference that shows what a place of the photograph shows.

Descriptors are unit vectors, so a dot product is a cosine. Positions are (x, y) in tokens, counted from the
centre of the first token. One pair at a time: pairs may differ in size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

CHUNK_BYTES = 64 * 2**20
"""Largest piece of the similarity matrix that is held at once."""


@dataclass(frozen=True)
class Matches:
    """The best match of every token of the photograph."""

    displacement: Tensor
    """(2, h, w): place in the reference minus own place, (x, y) in tokens."""
    score: Tensor
    """(h, w): cosine of the best match."""
    mass: Tensor
    """(h, w) in [0, 1]: share of the softmax over all places that lies around the best match."""
    mutual: Tensor
    """(h, w) in (0, 1]: 1 where the match's own best match is this token."""

    def weights(self) -> Tensor:
        """(h, w): how far each match can be trusted by itself."""
        return self.mass * self.mutual * self.score.clamp(min=0).square()


def own_positions(height: int, width: int, like: Tensor) -> Tensor:
    """(2, h, w): the (x, y) position of every token."""
    y = torch.arange(height, dtype=like.dtype, device=like.device)
    x = torch.arange(width, dtype=like.dtype, device=like.device)
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width)])


def match_everywhere(queries: Tensor, keys: Tensor, scale: float, *, radius: int = 1) -> Matches:
    """Compares every token of the photograph with every token of the reference.

    Args:
        queries: (D, h, w) unit descriptors of the photograph.
        keys: (D, H, W) unit descriptors of the reference.
        scale: factor on cosines before the softmax (the inverse of InfoNCE's temperature).
        radius: the match is the mean place of the softmax this many tokens around the best one.
    """
    _, height, width = queries.shape
    rows, columns = keys.shape[-2:]
    flat_queries, flat_keys = queries.flatten(1).T.contiguous(), keys.flatten(1)
    step = max(1, CHUNK_BYTES // (4 * flat_keys.shape[1]))
    places, scores, masses, indices = [], [], [], []
    best_of_keys = flat_keys.new_full((flat_keys.shape[1],), -2.0)
    for chunk in flat_queries.split(step):
        similarity = chunk @ flat_keys
        score, index = similarity.max(1)
        best_of_keys = torch.maximum(best_of_keys, similarity.amax(0))
        around, places_around = _around(index, rows, columns, radius)
        near = similarity.gather(1, around.clamp(min=0))
        near = ((near - score[:, None]) * scale).exp() * (around >= 0)
        total = similarity.sub_(score[:, None]).mul_(scale).exp_().sum(1)
        mass = near.sum(1)
        places.append((near[..., None] * places_around).sum(1) / mass[:, None])
        scores.append(score)
        masses.append(mass / total)
        indices.append(index)
    score, index = torch.cat(scores), torch.cat(indices)
    # 8: where the reference's token knows a better match by 0.1 of cosine, little trust is left.
    mutual = ((score - best_of_keys[index]) * 8).exp()
    target = torch.cat(places).T.reshape(2, height, width)
    shape = (height, width)
    return Matches(
        target - own_positions(height, width, target),
        score.reshape(shape),
        torch.cat(masses).clamp(max=1).reshape(shape),
        mutual.reshape(shape),
    )


def match_nearby(queries: Tensor, keys: Tensor, scale: float, *, radius: int) -> Matches:
    """Compares every token with those around it in a reference that is already laid over the photograph.

    Args:
        queries: (D, h, w) unit descriptors of the photograph.
        keys: (D, h, w) unit descriptors of the reference, resampled to the photograph's grid.
        scale: factor on cosines before the softmax.
        radius: how far to look, in tokens.

    Returns:
        Matches whose displacements are on the photograph's grid; `mutual` is 1.
    """
    logits = nearby_cosines(queries, keys, radius)
    score, index = logits.max(0)
    size = 2 * radius + 1
    weights = ((logits - score) * scale).exp()
    total = weights.sum(0)
    offsets = own_positions(size, size, queries).flatten(1) - radius
    # The mean place of the softmax, only around the best one: a second peak far off must not pull.
    near = (offsets[:, :, None, None] - offsets[:, index][:, None]).abs().amax(0) <= 1
    weights = weights * near
    mass = weights.sum(0)
    displacement = (offsets[:, :, None, None] * weights).sum(1) / mass
    return Matches(displacement, score, mass / total, torch.ones_like(score))


def nearby_cosines(queries: Tensor, keys: Tensor, radius: int) -> Tensor:
    """((2r+1)**2, h, w): cosines of every token with those around it, row by row."""
    _, height, width = queries.shape
    padded = F.pad(keys, (radius,) * 4)
    size = 2 * radius + 1
    return torch.stack(
        [
            (queries * padded[:, y : y + height, x : x + width]).sum(0)
            for y in range(size)
            for x in range(size)
        ]
    )


def resample(maps: Tensor, displacement: Tensor, *, mode: str = "bilinear") -> Tensor:
    """Lays a map of the reference over the photograph.

    Args:
        maps: (C, H, W) of the reference, on a grid of any size.
        displacement: (2, h, w) in cells of that grid.
        mode: of `grid_sample`; beyond the border its values repeat.

    Returns:
        (C, h, w).
    """
    height, width = displacement.shape[-2:]
    rows, columns = maps.shape[-2:]
    place = own_positions(height, width, displacement) + displacement
    size = place.new_tensor([columns, rows])[:, None, None]
    grid = ((place + 0.5) / size * 2 - 1).permute(1, 2, 0)
    return F.grid_sample(maps[None], grid[None], mode=mode, padding_mode="border", align_corners=False)[0]


def is_inside(displacement: Tensor, size: tuple[int, int]) -> Tensor:
    """(h, w), 1 where a displacement leads into a reference of `size` (H, W) cells, else 0."""
    place = own_positions(*displacement.shape[-2:], displacement) + displacement
    inside = (place[0] > -0.5) & (place[0] < size[1] - 0.5) & (place[1] > -0.5) & (place[1] < size[0] - 0.5)
    return inside.to(displacement.dtype)


def _around(index: Tensor, rows: int, columns: int, radius: int) -> tuple[Tensor, Tensor]:
    """Flat indices (N, n) of the tokens around each index, -1 outside, and their (x, y) (N, n, 2)."""
    offsets = torch.arange(-radius, radius + 1, device=index.device)
    y = (index // columns)[:, None, None] + offsets[:, None]
    x = (index % columns)[:, None, None] + offsets[None]
    y, x = torch.broadcast_tensors(y, x)
    is_outside = (y < 0) | (y >= rows) | (x < 0) | (x >= columns)
    flat = (y * columns + x).masked_fill(is_outside, -1)
    places = torch.stack([x, y], -1).flatten(1, 2).float()
    return flat.flatten(1), places
