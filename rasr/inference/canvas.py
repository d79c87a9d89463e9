"""From a photograph of any size to what a network can see, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from rasr.errors import RasrError
from rasr.image_ops import pad_to_multiple, resize_bicubic


@dataclass(frozen=True)
class Canvas:
    """A photograph enlarged for a network."""

    lq_up: Tensor
    """(1, 3, H, W): the enlarged photograph."""
    padded: Tensor
    """(1, 3, H', W'): the same, padded to the network's size multiple: what it sees."""
    size: tuple[int, int]
    """(scale * h, scale * w), the result's."""

    @classmethod
    def of(cls, lq: Tensor, *, scale: int, process_size: int | None, multiple: int) -> Canvas:
        """Enlarges a photograph.

        Args:
            lq: (1, 3, h, w) in [0, 1], any size from 1x1.
            scale: enlargement per side.
            process_size: side below which the network should not work: a photograph with a side under
                `process_size // scale` is first enlarged to it, the aspect kept; None is no minimum.
            multiple: H' and W' become multiples of it.
        """
        size = (lq.shape[-2] * scale, lq.shape[-1] * scale)
        short = min(lq.shape[-2:])
        minimum = 1 if process_size is None else process_size // scale
        if short < minimum:
            height, width = (round(side * minimum / short) for side in lq.shape[-2:])
            lq = resize_bicubic(lq, (height, width))
        lq_up = resize_bicubic(lq, (lq.shape[-2] * scale, lq.shape[-1] * scale))
        return cls(lq_up, pad_to_multiple(lq_up, multiple), size)

    def finish(self, sr: Tensor, color_fix: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Padding off, colours of the photograph, then the size that was asked for.

        OSEDiff's code throws that last resize away.

        Returns:
            (3, scale * h, scale * w) on the CPU.

        Raises:
            RasrError: the network gave NaN.
        """
        if not sr.isfinite().all():
            raise RasrError(
                "the network's result is NaN: its weights are damaged, or kept latents or banks are, or "
                "conditioning_scale is far too large; copy the weights again or give others"
            )
        height, width = self.lq_up.shape[-2:]
        sr = color_fix(sr[..., :height, :width], self.lq_up)
        return resize_bicubic(sr, self.size)[0].cpu()
