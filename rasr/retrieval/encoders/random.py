"""An encoder that finds nothing: a random direction per image."""

import json

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rasr.errors import RasrError
from rasr.retrieval.encoders.base import ImageEncoder, digest


class RandomEncoder(ImageEncoder):
    """A random direction per image content: Table 5's row "None", which picks references at random.

    Args:
        dim: length of the vectors.
        seed: another seed, other references.
    """

    kind = "random"

    def __init__(self, *, dim: int = 64, seed: int = 0) -> None:
        if dim < 2:
            raise RasrError(f"encoder.dim={dim}: must be at least 2")
        self.dim, self._seed = dim, seed
        self.name = "random"
        self.settings = {"kind": self.kind, "dim": dim, "seed": seed}
        self.version = digest("1", json.dumps(self.settings))

    def encode(self, images: list[Tensor]) -> Tensor:
        return functional.normalize(torch.stack([self._draw(image) for image in images]), dim=1)

    def _draw(self, image: Tensor) -> Tensor:
        content = image.detach().cpu().contiguous().numpy().tobytes()
        key = int(digest(str(self._seed), content.hex()), 16)
        return torch.from_numpy(np.random.default_rng(key).standard_normal(self.dim, dtype=np.float32))
