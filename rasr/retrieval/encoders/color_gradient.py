"""An encoder that needs no weights: colour and gradient statistics (`ColorGradientEncoder`)."""

import json

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rasr.errors import RasrError
from rasr.retrieval.encoders.base import ImageEncoder, digest, resize


class ColorGradientEncoder(ImageEncoder):
    """Colour and gradient-orientation statistics; needs no weights.

    Every image is first shrunk (antialiased) to `size` x `size`: noise, compression and resolution then
    matter little, so that a small degraded query meets the crops of its own photograph. Five blocks, each
    L2-normalised and weighted: joint Lab chroma histogram, lightness histogram, moments, orientation
    histogram (HOG, summed over cells), mean colours on a coarse grid. Only the last one knows positions.
    """

    kind = "color_gradient"

    _CHROMA_BINS, _LIGHTNESS_BINS, _ORIENTATIONS = 8, 12, 9
    _WEIGHTS = (1.0, 1.0, 0.6, 0.4, 0.2)  # found on crops of scikit-image's photographs
    _SCALE = np.array([50.0, 30.0, 30.0])  # spread of L, a, b in photographs

    def __init__(self, *, size: int = 16, grid: int = 2) -> None:
        if grid < 1 or size % (2 * grid) or size < 16:
            raise RasrError(f"encoder.size={size} must be >= 16 and a multiple of 2 x encoder.grid={grid}")
        self.size, self.grid = size, grid
        self.name = "color_gradient"
        self.settings = {"kind": self.kind, "size": size, "grid": grid}
        recipe = [self.settings, self._CHROMA_BINS, self._LIGHTNESS_BINS, self._ORIENTATIONS, self._WEIGHTS]
        self.version = digest("1", json.dumps(recipe))
        self.dim = self._CHROMA_BINS**2 + self._LIGHTNESS_BINS + 6 + self._ORIENTATIONS + 3 * grid**2

    def encode(self, images: list[Tensor]) -> Tensor:
        vectors = np.stack([self._describe(image) for image in images])
        return functional.normalize(torch.from_numpy(vectors).float(), dim=1)

    def _describe(self, image: Tensor) -> np.ndarray:
        from skimage.color import rgb2lab  # scikit-image is slow to import, and only this encoder needs it
        from skimage.feature import hog

        small = resize(image.cpu().float(), (self.size, self.size), "bicubic")
        lab = rgb2lab(small.permute(1, 2, 0).numpy().astype(np.float64))
        lightness, chroma = lab[..., 0].ravel(), lab[..., 1:].reshape(-1, 2)

        # Square root of chroma: most of a photograph is nearly gray, and that is where bins are needed.
        chroma = np.sign(chroma) * np.sqrt(np.abs(chroma) / 80)
        a, b = (_soft_bins(chroma[:, axis], -1, 1, self._CHROMA_BINS) for axis in (0, 1))
        chroma_histogram = np.sqrt((a.T @ b).ravel())
        lightness_histogram = np.sqrt(_soft_bins(lightness, 0, 100, self._LIGHTNESS_BINS).sum(0))

        centred = lab / self._SCALE - np.array([1.0, 0.0, 0.0])
        moments = np.concatenate([centred.mean((0, 1)), centred.std((0, 1))])
        half = self.size // 2
        cells = hog(lab[..., 0] / 100, self._ORIENTATIONS, (half, half), (2, 2), feature_vector=True)
        orientations = cells.reshape(-1, self._ORIENTATIONS).sum(0)
        step = self.size // self.grid
        colours = centred.reshape(self.grid, step, self.grid, step, 3).mean((1, 3)).ravel()

        blocks = (chroma_histogram, lightness_histogram, moments, orientations, colours)
        weighted = zip(self._WEIGHTS, blocks, strict=True)
        return np.concatenate([weight * block / (np.linalg.norm(block) + 1e-8) for weight, block in weighted])


def _soft_bins(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """Return (len(values), bins): each value shared linearly between its two nearest bins."""
    position = np.clip((values - low) / (high - low), 0, 1) * (bins - 1)
    return np.clip(1 - np.abs(position[:, None] - np.arange(bins)), 0, None)
