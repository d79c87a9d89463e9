"""A VGG-16 with random weights, in torchvision's format, and images for it."""

from pathlib import Path

import pytest
import torch

from rasr.losses.vgg import BLOCKS, VGG16Features


@pytest.fixture(scope="session")
def vgg_file(tmp_path_factory) -> Path:
    """Half precision, to be small; a stub of the classifier, to be ignored."""
    generator = torch.Generator().manual_seed(0)
    tensors, index, channels = {"classifier.0.weight": torch.zeros(2, 2)}, 0, 3
    for block in BLOCKS:
        for width in block:
            # He's scale keeps the activations' size through the layers, as trained weights do.
            weight = torch.randn(width, channels, 3, 3, generator=generator) * (2 / (9 * channels)) ** 0.5
            tensors[f"features.{index}.weight"] = weight.half()
            tensors[f"features.{index}.bias"] = (0.1 * torch.randn(width, generator=generator)).half()
            channels, index = width, index + 2
        index += 1  # the pooling
    path = tmp_path_factory.mktemp("vgg") / "vgg16-397923af.pth"
    torch.save(tensors, path)
    return path


@pytest.fixture
def vgg(vgg_file) -> VGG16Features:
    return VGG16Features(str(vgg_file))


@pytest.fixture
def images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {name: torch.rand(2, 3, 32, 48, generator=generator) for name in ("sr", "gt")}
