"""Target and reference on one canvas, as the official code has them; here for comparison with it.

They need no common size (`rasr.fusion.injection.fit_reference`).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rasr.image_ops import resize_bicubic


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
