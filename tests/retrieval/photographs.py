"""Real photographs from the installed scikit-image and scikit-learn, and a small degradation of its own."""

import io
from pathlib import Path

import numpy as np
import skimage
import sklearn
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from rasr.image_io import read_image

_FILES = {
    skimage: "astronaut.png chelsea.png coffee.png rocket.jpg motorcycle_left.png camera.png retina.jpg "
    "hubble_deep_field.jpg ihc.png brick.png grass.png coins.png",
    sklearn: "china.jpg flower.jpg",
}
_FOLDERS = {skimage: "data", sklearn: "datasets/images"}


def crops_of_photographs(size: int) -> dict[str, list[Tensor]]:
    """Cut every photograph into non-overlapping squares, (3, size, size) each, in a fixed random order."""
    crops: dict[str, list[Tensor]] = {}
    rng = np.random.default_rng(0)
    for package, names in _FILES.items():
        folder = Path(package.__file__).parent / _FOLDERS[package]
        for name in names.split():
            image = read_image(folder / name)
            tiles = image.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4).flatten(0, 1)
            crops[Path(name).stem] = [tiles[n].contiguous() for n in rng.permutation(len(tiles))]
    return crops


def degrade(gt: Tensor, seed: int) -> Tensor:
    """Blur, noise and JPEG, twice, at a quarter of the size in the end; as strong as Real-ESRGAN's."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray((gt.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8))
    small = (gt.shape[2] // 4, gt.shape[1] // 4)
    for blur, noise, size in ((rng.uniform(0.2, 3), 30, image.size), (rng.uniform(0.2, 1.5), 25, small)):
        image = image.filter(ImageFilter.GaussianBlur(blur)).resize(size, Image.Resampling.BICUBIC)
        pixels = np.asarray(image) + rng.normal(0, rng.uniform(1, noise), (*reversed(size), 3))
        file = io.BytesIO()
        quality = int(rng.integers(30, 95))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
        image = Image.open(file).convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255
