"""What training, test sets and previews ask of a degradation."""

from abc import ABC, abstractmethod
from typing import Any

from torch import Tensor, nn

from rasr.checks import check_whole


class Degradation(nn.Module, ABC):
    """Degrade a batch of clean images.

    A further one is a subclass, anywhere, and a yaml with its `_target_` and `scale: ${scale}` in the group
    `degradation`.

    Attributes:
        preset: its name in the record of a test set.
        scale: shrinking per side.
        fixed: the parameters (a dataclass), where they are the same for every image; None where they differ.
    """

    fixed: Any = None

    def __init__(self, preset: str, *, scale: int) -> None:
        """Raises a RasrError unless `scale` is a whole number of at least 1."""
        super().__init__()
        check_whole("degradation.scale", scale, least=1)
        self.preset = preset
        self.scale = scale

    def parameters_of(self, seed: int) -> Any | None:
        """Return what happens to the sample with this seed, as a dataclass; None if nothing varies.

        A test set is made anew where they have changed, so all that decides the result belongs in there.
        """
        return None

    @abstractmethod
    def forward(self, gt: Tensor, *, seeds: Tensor) -> Tensor:
        """Degrade `gt`.

        Args:
            gt: (B, 3, H, W), RGB, [0, 1], H and W divisible by `scale`, on any device.
            seeds: (B,) int64; a sample's seed alone decides its parameters and its noise.

        Returns:
            (B, 3, H / scale, W / scale), float32, [0, 1], on the 256 levels of an 8-bit file.
        """
