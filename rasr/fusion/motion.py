"""From single matches, some of them wrong, to a motion that is smooth where the scene is.

Neighbours in a picture move together. The whole picture's affine motion is fitted first, then what
windows of falling size add to it; a window's addition counts as far as it is significant (James and Stein's
shrinkage), so that a flat wall keeps the exact motion of its many matches, and a thing in front of it gets
its own. Wrong matches lose their weight step by step (iteratively reweighted least squares).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.fusion.matching import own_positions

VOTE_RADIUS = 2
VOTE_TOLERANCE = 1.5
"""Tokens; a neighbour that moves within this distance supports a match."""
INDEPENDENT = 0.25
"""Share of neighbouring matches that count as independent: descriptors overlap."""
NOISE_FLOOR = 0.02
"""Square of the least deviation of matches that is believed, in tokens."""


def smooth_motion(
    displacement: Tensor, weights: Tensor, radii: tuple[int | None, ...], *, start: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Fits the motion.

    Args:
        displacement: (2, h, w) of single matches, in tokens.
        weights: (h, w) >= 0, their trust.
        radii: of the windows, large to small; None is the whole picture.
        start: (2, h, w), a motion known before; None is no motion.

    Returns:
        The motion (2, h, w); of each token the share (h, w) of the trust around it that agrees with it, and
        the amount (h, w) of that trust.
    """
    dtype = displacement.dtype
    displacement, weights = displacement.double(), weights.double()
    trusted = weights * support(displacement, weights).square()
    motion = torch.zeros_like(displacement) if start is None else start.double()
    for radius in radii:
        motion = motion + _addition(displacement - motion, trusted, radius)
    error = (displacement - motion).square().sum(0)
    agreeing = weights * (-error / 2).exp()
    amount, total = _box(torch.stack([agreeing, weights]), 3)
    return motion.to(dtype), (amount / (total + 1e-6)).to(dtype), (amount / 49).to(dtype)


def support(displacement: Tensor, weights: Tensor) -> Tensor:
    """(h, w) in [0, 1]: share of the trust around each token that moves as it does."""
    size = 2 * VOTE_RADIUS + 1
    padded = F.pad(displacement[None], (VOTE_RADIUS,) * 4, mode="replicate")
    around = F.unfold(padded, size).reshape(2, size * size, *displacement.shape[-2:])
    trust = F.unfold(F.pad(weights[None, None], (VOTE_RADIUS,) * 4), size)
    trust = trust.reshape(size * size, *weights.shape)
    trust[size * size // 2] = 0  # nobody votes for himself
    distance = (around - displacement[:, None]).square().sum(0)
    votes = trust * (-distance / (2 * VOTE_TOLERANCE**2)).exp()
    return votes.sum(0) / (trust.sum(0) + 1e-6)


def _addition(rest: Tensor, weights: Tensor, radius: int | None) -> Tensor:
    """What a window's affine motion adds, shrunk to what is significant."""
    height, width = weights.shape
    reach = max(height, width) / 2 if radius is None else radius
    position = own_positions(height, width, rest) / reach
    fit = _mean(rest, weights, radius)
    steps = (8.0, 4.0, 2.0, 1.0) if radius is None else (4.0, 2.0, 1.0)
    for deviation in steps:
        error = (rest - fit).square().sum(0)
        robust = weights * (-error / (2 * deviation**2)).exp()
        fit, explained, amount = _affine_fit(position, rest, robust, radius)
    spread = _sum((robust * (rest - fit).square().sum(0))[None], radius)[0]
    noise = spread / (2 * amount + 1e-9) + NOISE_FLOOR
    # Test statistic of the addition against the noise: about 6, the number of coefficients, if there is none.
    statistic = INDEPENDENT * explained / noise
    return fit * (1 - 6 / (statistic + 1e-9)).clamp(min=0)


def _affine_fit(
    position: Tensor, rest: Tensor, weights: Tensor, radius: int | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Weighted affine fits around every token.

    Returns:
        Their values (2, h, w) at the token itself, the sum of squares (h, w) that they explain, and the
        weights' sum (h, w).
    """
    x, y = position
    moments = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])
    right = torch.stack([torch.ones_like(x), x, y])[None] * rest[:, None]
    sums = _sum(torch.cat([moments, right.flatten(0, 1)]) * weights, radius)
    amount, sx, sy, sxx, sxy, syy = sums[:6]
    b0, bx, by = sums[6:].reshape(2, 3, *x.shape).unbind(1)
    # Around the token itself.
    mx, my = sx - x * amount, sy - y * amount
    mxx = sxx - 2 * x * sx + x * x * amount
    myy = syy - 2 * y * sy + y * y * amount
    mxy = sxy - x * sy - y * sx + x * y * amount
    bx, by = bx - x * b0, by - y * b0
    # A slope is believed where the matches do not lie on a line. Solved by hand: LAPACK takes 50 times as
    # long.
    damping = 0.0005 * (1 + amount)
    mass, mxx, myy = amount + 1e-6, mxx + damping, myy + damping
    cxx, cxy, cyy = mxx - mx * mx / mass, mxy - mx * my / mass, myy - my * my / mass
    cx, cy = bx - b0 * mx / mass, by - b0 * my / mass
    determinant = cxx * cyy - cxy * cxy
    slope_x = (cyy * cx - cxy * cy) / determinant
    slope_y = (cxx * cy - cxy * cx) / determinant
    value = (b0 - slope_x * mx - slope_y * my) / mass
    explained = (value * b0 + slope_x * bx + slope_y * by).sum(0).clamp(min=0)
    return value, explained, amount


def _mean(values: Tensor, weights: Tensor, radius: int | None) -> Tensor:
    sums = _sum(torch.cat([values * weights, weights[None]]), radius)
    return sums[:-1] / (sums[-1] + 1e-9)


def _sum(maps: Tensor, radius: int | None) -> Tensor:
    """Sums over a window around each token, or over the whole picture."""
    if radius is None:
        return maps.sum((-2, -1), keepdim=True).expand_as(maps)
    return _box(maps, radius)


def _box(maps: Tensor, radius: int) -> Tensor:
    size = 2 * radius + 1
    for kernel, padding in (((size, 1), (radius, 0)), ((1, size), (0, radius))):
        maps = F.avg_pool2d(maps[None], kernel, 1, padding)[0] * size
    return maps
