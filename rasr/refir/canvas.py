"""The size at which a reference is seen.

Target and reference need no common size (their keys, values and gate directions have none), so that nothing
of the target is padded and nothing of the reference is lost. `shared_canvas` is what the official code does
instead, for comparison with it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rasr.image_ops import cover_and_crop, resize_bicubic


def fit_reference(ref: Tensor, multiple: int, max_side: int | None = None) -> Tensor:
    """Brings a reference to sides that the network takes, its aspect kept.

    Args:
        ref: (1, 3, H, W) in [0, 1], any size.
        multiple: sides of the result are multiples of this; what is over is cut off evenly.
        max_side: a longer reference is shrunk to it; None never shrinks. It is never enlarged beyond one
            `multiple`: texture counts at its own scale.
    """
    height, width = ref.shape[-2:]
    factor = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    size = tuple(max(multiple, int(side * factor) // multiple * multiple) for side in (height, width))
    return cover_and_crop(ref, size)


def shared_canvas(lq_up: Tensor, ref: Tensor, multiple: int = 8) -> Tensor:
    """Target and reference on one canvas, as the official SeeSR script prepares them.

    A reference under half the target is enlarged to just over half; its top left corner is kept, at most
    twice the target rounded down to 64; then both are mirrored downwards and to the right, edge pixels
    repeated, to the larger of the two sizes.

    Args:
        lq_up: (1, 3, H, W), sides multiples of `multiple`.
        ref: (1, 3, H', W'), any size.
        multiple: sides of the reference are rounded down to it.

    Returns:
        (2, 3, max(H, H'), max(W, W')): target, reference.
    """
    size = []
    for side, ref_side in zip(lq_up.shape[-2:], ref.shape[-2:], strict=True):
        enlarged = side // 2 + multiple if 2 * ref_side < side else ref_side
        size.append(max(multiple, enlarged // multiple * multiple))
    ref = resize_bicubic(ref, tuple(size))
    height, width = (max(side, 2 * side // 64 * 64) for side in lq_up.shape[-2:])
    ref = ref[..., :height, :width]
    canvas = tuple(max(sides) for sides in zip(lq_up.shape[-2:], ref.shape[-2:], strict=True))
    return torch.cat([_mirror(lq_up, canvas), _mirror(ref, canvas)])


def _mirror(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Symmetric padding: the edge pixel is repeated, unlike torch's "reflect"."""
    for dim, side in zip((-2, -1), size, strict=True):
        images = torch.cat([images, images.flip(dim)], dim=dim).narrow(dim, 0, side)
    return images
