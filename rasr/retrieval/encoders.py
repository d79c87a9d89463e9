"""Image encoders: an image of any size becomes one L2-normalised vector.

`TimmEncoder` wraps any timm model (DINOv2 by default elsewhere). `ColorGradientEncoder` needs no weights.
Nothing here stores or compares vectors.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from rasr.errors import RasrError
from rasr.pretrained import load_timm_model


class ImageEncoder(ABC):
    """What the index and the retriever need to know of an encoder.

    Attributes:
        name: what a person calls it.
        version: short hash of everything that changes the vectors (weights, pre-processing). Vectors are
            comparable only if name and version agree.
        dim: length of a vector.
        settings: JSON-able; `encoder_from_settings` makes the same encoder of it. Kept in every index.
    """

    name: str
    version: str
    dim: int
    settings: dict[str, Any]

    @abstractmethod
    def encode(self, images: list[Tensor]) -> Tensor:
        """Encode a batch.

        Args:
            images: each (3, H, W), RGB, in [0, 1]; sizes may differ.

        Returns:
            (len(images), dim) float32 on the CPU, L2-normalised.
        """


def encoder_from_settings(settings: Mapping[str, Any], device: str = "auto") -> ImageEncoder:
    """Make the encoder that an index was built with, from the settings kept in it."""
    settings = dict(settings)
    kind = settings.pop("kind", None)
    if kind == "color_gradient":
        return ColorGradientEncoder(**settings)
    if kind == "timm":
        return TimmEncoder(device=device, **settings)
    raise RasrError(f"unknown kind of encoder {kind!r} in the index's settings; name the encoder yourself")


class ColorGradientEncoder(ImageEncoder):
    """Colour and gradient-orientation statistics; needs no weights.

    Every image is first shrunk (antialiased) to `size` x `size`: noise, compression and resolution then
    matter little, so that a small degraded query meets the crops of its own photograph. Five blocks, each
    L2-normalised and weighted: joint Lab chroma histogram, lightness histogram, moments, orientation
    histogram (HOG, summed over cells), mean colours on a coarse grid. Only the last one knows positions.
    """

    _CHROMA_BINS, _LIGHTNESS_BINS, _ORIENTATIONS = 8, 12, 9
    _WEIGHTS = (1.0, 1.0, 0.6, 0.4, 0.2)  # found on crops of scikit-image's photographs
    _SCALE = np.array([50.0, 30.0, 30.0])  # spread of L, a, b in photographs

    def __init__(self, *, size: int = 16, grid: int = 2) -> None:
        if grid < 1 or size % (2 * grid) or size < 16:
            raise RasrError(f"encoder.size={size} must be >= 16 and a multiple of 2 x encoder.grid={grid}")
        self.size, self.grid = size, grid
        self.name = "color_gradient"
        self.settings = {"kind": "color_gradient", "size": size, "grid": grid}
        recipe = [self.settings, self._CHROMA_BINS, self._LIGHTNESS_BINS, self._ORIENTATIONS, self._WEIGHTS]
        self.version = _digest("1", json.dumps(recipe))
        self.dim = self._CHROMA_BINS**2 + self._LIGHTNESS_BINS + 6 + self._ORIENTATIONS + 3 * grid**2

    def encode(self, images: list[Tensor]) -> Tensor:
        vectors = np.stack([self._describe(image) for image in images])
        return functional.normalize(torch.from_numpy(vectors).float(), dim=1)

    def _describe(self, image: Tensor) -> np.ndarray:
        from skimage.color import rgb2lab  # scikit-image is slow to import, and only this encoder needs it
        from skimage.feature import hog

        small = _resize(image.cpu().float(), (self.size, self.size), "bicubic")
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


class TimmEncoder(ImageEncoder):
    """The pooled features of a timm model, with the model's own pre-processing.

    Args:
        model_name: timm's name, with or without the tag of its weights.
        weights: a local file (.safetensors, .pth, .bin) with the whole model; None takes them from the
            Hugging Face cache or hub.
        img_size: side of the square that the model sees; None takes the model's own.
        device: "auto" takes a GPU if there is one.
    """

    def __init__(
        self,
        model_name: str,
        *,
        weights: str | None = None,
        img_size: int | None = None,
        device: str = "auto",
    ) -> None:
        import timm  # seconds of import that the other encoder does without

        if not timm.is_model(model_name):
            raise RasrError(
                f"encoder.model_name={model_name}: timm has no such model; see timm.list_models()"
            )
        net = load_timm_model(
            model_name,
            weights,
            key="encoder.weights",
            alternative="use encoder=color_gradient",
            img_size=img_size,
        )
        net = net.eval().requires_grad_(False)

        data_config = timm.data.resolve_model_data_config(net)
        side = img_size or data_config["input_size"][-1]
        self._size = (side, side)
        self._crop_pct = 1.0 if data_config["crop_mode"] == "squash" else data_config["crop_pct"]
        self._is_squashed = data_config["crop_mode"] == "squash"
        self._interpolation = "bilinear" if data_config["interpolation"] == "bilinear" else "bicubic"
        self._mean = torch.tensor(data_config["mean"]).view(3, 1, 1)
        self._std = torch.tensor(data_config["std"]).view(3, 1, 1)

        self.name = model_name
        self.dim = net(torch.zeros(1, 3, *self._size)).shape[1]
        self.settings = {
            "kind": "timm",
            "model_name": model_name,
            "weights": None if weights is None else str(Path(weights).resolve()),
            "img_size": img_size,
        }
        preparation = [side, self._crop_pct, self._is_squashed, self._interpolation]
        preparation += [self._mean.flatten().tolist(), self._std.flatten().tolist()]
        self.version = _digest("1", json.dumps(preparation), net)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        self._device = torch.device(device)
        self._net = net.to(self._device)

    @torch.inference_mode()
    def encode(self, images: list[Tensor]) -> Tensor:
        batch = torch.stack([self._prepare(image) for image in images]).to(self._device)
        return functional.normalize(self._net(batch).float(), dim=1).cpu()

    def _prepare(self, image: Tensor) -> Tensor:
        """Return (3, S, S), normalised for the model; cut first, so that a thin strip does not explode."""
        image = image.cpu().float()
        if not self._is_squashed:
            height, width = image.shape[1:]
            side = max(1, round(min(height, width) * self._crop_pct))
            top, left = (height - side) // 2, (width - side) // 2
            image = image[:, top : top + side, left : left + side]
        return (_resize(image, self._size, self._interpolation) - self._mean) / self._std


def _soft_bins(values: np.ndarray, low: float, high: float, bins: int) -> np.ndarray:
    """Return (len(values), bins): each value shared linearly between its two nearest bins."""
    position = np.clip((values - low) / (high - low), 0, 1) * (bins - 1)
    return np.clip(1 - np.abs(position[:, None] - np.arange(bins)), 0, None)


def _resize(image: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    resized = functional.interpolate(image[None], size, mode=mode, antialias=True, align_corners=False)
    return resized[0].clamp(0, 1)


def _digest(*parts: str | nn.Module) -> str:
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            digest.update(part.encode())
            continue
        for name, tensor in part.state_dict().items():
            digest.update(name.encode())
            digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]
