"""VGG-16 features of images: what the LPIPS and Gram terms compare."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rasr.errors import RasrError
from rasr.image_ops import IMAGENET_MEAN, IMAGENET_STD
from rasr.pretrained import fetch_torch_file, read_tensors

URL = "https://download.pytorch.org/models/vgg16-397923af.pth"
KEY = "loss.vgg_weights"

# Channels of the convolutions between two poolings (configuration D of Simonyan and Zisserman 2014).
BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
LAYERS = {"relu1_2": 64, "relu2_2": 128, "relu3_3": 256, "relu4_3": 512, "relu5_3": 512}
"""Channels of the layers that `VGG16Features` returns: the last activation of each block."""


class VGG16Features(nn.Module):
    """Activations of torchvision's VGG-16, frozen and in evaluation mode for ever.

    One network serves both terms: the input scaling inside `lpips` is the ImageNet normalisation, written for
    [-1, 1]. It never computes in less than float32, not under autocast either: Gram matrices overflow in half
    precision.

    Args:
        weights: torchvision's VGG-16 (.pth or .safetensors, with or without the classifier); None takes
            torch's cache, or downloads.
    """

    def __init__(self, weights: str | None = None) -> None:
        super().__init__()
        self.features = _make_features()
        self._load(weights)
        # Not part of any checkpoint.
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(B, 3, H, W) in [0, 1], at least 16 pixels each way -> (B, C, h, w) per name in `LAYERS`."""
        activations = []
        with torch.autocast(images.device.type, enabled=False):
            x = images.to(torch.promote_types(images.dtype, torch.float32))
            x = (x - self.mean) / self.std
            for layer in self.features:
                if isinstance(layer, nn.MaxPool2d):
                    activations.append(x)
                x = layer(x)
        return dict(zip(LAYERS, [*activations, x], strict=True))

    def train(self, mode: bool = True) -> VGG16Features:
        """Does nothing but stay in evaluation mode."""
        return super().train(False)

    def requires_grad_(self, requires_grad: bool = True) -> VGG16Features:
        """Does nothing but stay frozen."""
        return super().requires_grad_(False)

    def _load(self, weights: str | None) -> None:
        path = weights if weights is not None else fetch_torch_file(URL, model="VGG-16", key=KEY)
        tensors = read_tensors(path, key=KEY)
        features = {
            name.removeprefix("features."): tensor.float()
            for name, tensor in tensors.items()
            if name.startswith("features.")
        }
        try:
            self.features.load_state_dict(features, assign=True)
        except RuntimeError as error:
            wanted, found = self.features.state_dict(), features
            wrong = [k for k in wanted if k not in found or found[k].shape != wanted[k].shape]
            wrong = [*wrong, *(k for k in found if k not in wanted)]
            raise RasrError(
                f"{path}: not torchvision's VGG-16 (tensor features.{wrong[0]} is missing, superfluous or of "
                f"another shape); give the right file by {KEY}=FILE"
            ) from error


def _make_features() -> nn.Sequential:
    """torchvision's `vgg16().features` up to relu5_3, without memory: the weights are assigned afterwards."""
    layers: list[nn.Module] = []
    channels = 3
    for block in BLOCKS:
        if layers:
            layers.append(nn.MaxPool2d(2))
        for width in block:
            layers += [nn.Conv2d(channels, width, 3, padding=1, device="meta"), nn.ReLU(inplace=True)]
            channels = width
    return nn.Sequential(*layers)
