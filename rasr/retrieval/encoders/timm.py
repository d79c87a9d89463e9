"""Image encoders of the papers: any timm model (DINOv2, DINOv3, CLIP, VGG-16, ResNet-50).

A query is treated exactly as an image of the database: its centre is cut to a square, then resized to the
model's input with antialiasing, up or down. A small LQ image and its large original therefore show the model
the same frame at the same size, and differ only in what the degradation took. Nothing is enlarged first, as
in ReFIR's retrieval. Nothing here stores or compares vectors.
"""

import json
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.pretrained import load_timm_model
from rasr.retrieval.encoders.base import ImageEncoder, digest, resize


class TimmEncoder(ImageEncoder):
    """The features of a timm model, with the model's own pre-processing.

    Args:
        model_name: timm's name, with or without the tag of its weights.
        weights: a local file (.safetensors, .pth, .bin) with the whole model; None takes them from the
            Hugging Face cache or hub.
        img_size: side of the square that the model sees; None takes the model's own.
        pool: "head" takes what timm gives its classifier; "avg" the mean of the last feature map, as ReFIR
            does with VGG-16.
        precision: "fp32", or "bf16" for speed on recent GPUs; the vectors of both are comparable.
        device: "auto" takes a GPU if there is one.
    """

    kind = "timm"

    def __init__(
        self,
        model_name: str,
        *,
        weights: str | None = None,
        img_size: int | None = None,
        pool: str = "head",
        precision: str = "fp32",
        device: str = "auto",
    ) -> None:
        import timm  # seconds of import that the other encoders do without

        if not timm.is_model(model_name):
            raise RasrError(
                f"encoder.model_name={model_name}: timm has no such model; see timm.list_models()"
            )
        if pool not in ("head", "avg"):
            raise RasrError(f"encoder.pool={pool!r} is unknown; give head or avg")
        if precision not in ("fp32", "bf16"):
            raise RasrError(f"encoder.precision={precision!r} is unknown; give fp32 or bf16")
        net = load_timm_model(
            model_name,
            weights,
            key="encoder.weights",
            alternative="use encoder=color_gradient",
            img_size=img_size,
        )
        self._net = net.eval().requires_grad_(False)
        self._pool, self._precision = pool, precision

        data_config = timm.data.resolve_model_data_config(net)
        side = img_size or data_config["input_size"][-1]
        self._size = (side, side)
        self._crop_pct = 1.0 if data_config["crop_mode"] == "squash" else data_config["crop_pct"]
        self._is_squashed = data_config["crop_mode"] == "squash"
        self._interpolation = "bilinear" if data_config["interpolation"] == "bilinear" else "bicubic"
        self._mean = torch.tensor(data_config["mean"]).view(3, 1, 1)
        self._std = torch.tensor(data_config["std"]).view(3, 1, 1)

        self.name = model_name
        self.dim = self._features(torch.zeros(1, 3, *self._size)).shape[1]
        self.settings = {
            "kind": self.kind,
            "model_name": model_name,
            "weights": None if weights is None else str(Path(weights).resolve()),
            "img_size": img_size,
            "pool": pool,
            "precision": precision,
        }
        preparation = [side, self._crop_pct, self._is_squashed, self._interpolation, pool]
        preparation += [self._mean.flatten().tolist(), self._std.flatten().tolist()]
        self.version = digest("2", json.dumps(preparation), net)
        self._device = resolve_device(device)
        self._net.to(self._device)

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any], device: str = "auto") -> "TimmEncoder":
        """A file of weights that is no longer where it was is looked for in the hub's cache and the hub."""
        settings = dict(settings)
        if settings.get("weights") is not None and not Path(settings["weights"]).is_file():
            settings["weights"] = None
        return cls(device=device, **settings)

    @torch.inference_mode()
    def encode(self, images: list[Tensor]) -> Tensor:
        batch = torch.stack([self.prepare(image) for image in images]).to(self._device)
        with self._autocast():
            features = self._features(batch)
        return functional.normalize(features.float(), dim=1).cpu()

    def prepare(self, image: Tensor) -> Tensor:
        """What the model sees of an image (3, H, W): (3, S, S), normalised for it.

        It is cut first, so that a thin strip does not explode.
        """
        image = image.cpu().float()
        if not self._is_squashed:
            height, width = image.shape[1:]
            side = max(1, round(min(height, width) * self._crop_pct))
            top, left = (height - side) // 2, (width - side) // 2
            image = image[:, top : top + side, left : left + side]
        return (resize(image, self._size, self._interpolation) - self._mean) / self._std

    def _features(self, batch: Tensor) -> Tensor:
        if self._pool == "head":
            return self._net(batch)
        features = self._net.forward_features(batch)
        if features.ndim != 4:
            raise RasrError("encoder.pool=avg wants a convolutional network; give encoder.pool=head")
        return features.mean((2, 3))

    def _autocast(self) -> AbstractContextManager:
        if self._precision == "fp32":
            return nullcontext()
        return torch.autocast(self._device.type, torch.bfloat16)
