"""What every image encoder offers: an image of any size becomes one L2-normalised vector."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn import functional


class ImageEncoder(ABC):
    """What the index and the retriever need to know of an encoder.

    An encoder is one class and one entry of conf/options/encoder.yaml; one from elsewhere is registered
    (`rasr.retrieval.encoders.registry`), so that an index which it built can be searched.

    Attributes:
        kind: under which the registry, and the settings in an index, know the class.
        name: what a person calls it.
        version: short hash of everything that changes the vectors (weights, pre-processing). Vectors are
            comparable only if name and version agree.
        dim: length of a vector.
        settings: JSON-able, with `kind`; `encoder_from_settings` makes the same encoder of the rest. Kept in
            every index.
    """

    kind: str
    name: str
    version: str
    dim: int
    settings: dict[str, Any]

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], device: str = "auto") -> "ImageEncoder":
        """Make the encoder of `settings` without `kind`.

        Args:
            settings: see the class.
            device: where it computes, if it is a matter of choice.
        """
        return cls(**settings)

    @abstractmethod
    def encode(self, images: list[Tensor]) -> Tensor:
        """Encode a batch.

        Args:
            images: each (3, H, W), RGB, in [0, 1]; sizes may differ.

        Returns:
            (len(images), dim) float32 on the CPU, L2-normalised.
        """


def resize(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize (3, H, W) in [0, 1] with antialiasing, so that a reduced photograph keeps its look."""
    resized = functional.interpolate(image[None], size, mode=mode, antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def digest(*parts: str | nn.Module) -> str:
    """A short hash of texts and of networks' weights."""
    result = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            result.update(part.encode())
            continue
        for name, tensor in part.state_dict().items():
            result.update(name.encode())
            result.update(tensor.cpu().contiguous().numpy().tobytes())
    return result.hexdigest()[:12]
