"""Kept reference latents: z_ref of database images, so that inference never runs the reference VAE.

The branch's features are a pure function of the reference image (RASR paper, section 3.2), and z_ref is the
cheapest point to cut: 32 KB per image in fp16 at 512x512 on SD-2.1, whatever the branch has learnt. One
safetensors file per image, named by the content hash of the image file; `latents.json` says which VAE made
them and at which size.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from rasr.errors import RasrError
from rasr.image_io import ImageReadError, atomic_path, read_image
from rasr.image_ops import cover_and_crop
from rasr.models.vae import encode_latents, vae_factor

logger = logging.getLogger(__name__)

META_FILE = "latents.json"
KEY = "z_ref"


@dataclass(frozen=True)
class StoreReport:
    """What `ReferenceLatents.store` did."""

    stored: int
    known: int
    bad: tuple[str, ...]
    """One line per image that could not be read."""


class ReferenceLatents:
    """A folder of latents of one VAE at one size.

    Args:
        path: the folder.
        vae: fingerprint of the VAE (`vae_fingerprint`).
        size: side in pixels of the square that was encoded.
    """

    def __init__(self, path: str | Path, *, vae: str, size: int) -> None:
        self.path = Path(path)
        self.vae = vae
        self.size = size

    @classmethod
    def create(cls, path: str | Path, vae: AutoencoderKL, size: int) -> ReferenceLatents:
        """Begins a folder, or goes on with one of the same VAE and size.

        Raises:
            RasrError: the folder holds latents of another VAE or size, or `size` does not fit the VAE.
        """
        factor = vae_factor(vae)
        if size < factor or size % factor:
            raise RasrError(f"latent_size={size} does not fit the VAE; give a multiple of {factor}")
        latents = cls(path, vae=vae_fingerprint(vae), size=size)
        if (latents.path / META_FILE).is_file():
            before = cls.open(path)
            if (before.vae, before.size) != (latents.vae, size):
                raise RasrError(
                    f"{path} holds latents of another VAE or size (VAE {before.vae}, {before.size} pixels; "
                    f"now {latents.vae}, {size}); give another folder, or remove this one"
                )
            return before
        latents.path.mkdir(parents=True, exist_ok=True)
        with atomic_path(latents.path / META_FILE) as temporary:
            temporary.write_text(json.dumps({"vae": latents.vae, "size": size}) + "\n")
        return latents

    @classmethod
    def open(cls, path: str | Path) -> ReferenceLatents:
        """Opens a folder that `create` began; a RasrError names what is wrong with it."""
        meta = Path(path) / META_FILE
        if not meta.is_file():
            raise RasrError(
                f"latents={path} is no folder of reference latents ({META_FILE} is missing); make it with "
                "python index.py ... latents=FOLDER"
            )
        try:
            return cls(path, **json.loads(meta.read_text()))
        except (ValueError, TypeError) as error:
            raise RasrError(f"{meta} is damaged; remove {path} and make it again with index.py") from error

    def check_vae(self, vae: AutoencoderKL) -> None:
        """Refuses a VAE other than the one that made the latents: the branch would see noise."""
        if (fingerprint := vae_fingerprint(vae)) != self.vae:
            raise RasrError(
                f"latents={self.path} come from another VAE ({self.vae}) than that of the weights "
                f"({fingerprint}); leave out latents=, or make them again with that backbone"
            )

    def store(self, images: Iterable[tuple[str, Path]], vae: AutoencoderKL, batch_size: int) -> StoreReport:
        """Encodes the images that are not there yet; an interrupted call goes on when it is repeated.

        Every image is scaled to cover the square and its centre is cut out, as `Restorer` does it with a
        reference on a square canvas.

        Args:
            images: (content hash, path) of each image.
            vae: the base VAE, on the device that shall do the work.
            batch_size: images encoded together.
        """
        images = dict(images)
        todo = [(key, path) for key, path in images.items() if not self._file(key).is_file()]
        bad = []
        device = next(vae.parameters()).device
        with tqdm(total=len(todo), desc="encoding references", unit="image") as progress:
            for first in range(0, len(todo), batch_size):
                keys, squares = [], []
                for key, path in todo[first : first + batch_size]:
                    try:
                        image = read_image(path)[None]
                    except ImageReadError as error:
                        logger.error("%s", error)
                        bad.append(str(error))
                        continue
                    keys.append(key)
                    squares.append(cover_and_crop(image, (self.size, self.size)))
                if squares:
                    with torch.inference_mode():
                        encoded = encode_latents(vae, torch.cat(squares).to(device)).half().cpu()
                    for key, latent in zip(keys, encoded, strict=True):
                        self._write(key, latent)
                progress.update(len(keys))
        return StoreReport(len(todo) - len(bad), len(images) - len(todo), tuple(bad))

    def get(self, content_hash: str) -> Tensor | None:
        """z_ref (1, C, size/f, size/f) in fp16 of the image with that content hash.

        None if it is not here or, with a logged line, if its file is damaged: the VAE can make it again.
        """
        path = self._file(content_hash)
        if not path.is_file():
            return None
        try:
            return load_file(path)[KEY][None]
        except (SafetensorError, KeyError, OSError):
            logger.warning("%s is damaged and not used; delete it and run index.py ... latents= again", path)
            return None

    def _write(self, content_hash: str, latent: Tensor) -> None:
        path = self._file(content_hash)
        path.parent.mkdir(exist_ok=True)
        with atomic_path(path) as temporary:
            save_file({KEY: latent.contiguous()}, temporary)

    def _file(self, content_hash: str) -> Path:
        # Two levels: a folder of a million files is slow on most file systems.
        return self.path / content_hash[:2] / f"{content_hash}.safetensors"


def vae_fingerprint(vae: AutoencoderKL) -> str:
    """Short hash of what turns images into latents: the encoder's weights and the scaling factor.

    The weights are compared in bf16, so that a net loaded in bf16 still knows the latents made in fp32.
    """
    digest = hashlib.sha256(str(vae.config.scaling_factor).encode())
    for name, tensor in sorted(vae.state_dict().items()):
        if name.startswith(("encoder.", "quant_conv.")):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().bfloat16().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def crop_latents(latents: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Cuts the centre of square latents to the aspect of a canvas (H, W), like `cover_and_crop` an image."""
    height, width = latents.shape[-2:]
    factor = min(height / canvas[0], width / canvas[1])
    size = (max(1, round(canvas[0] * factor)), max(1, round(canvas[1] * factor)))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return latents[..., top : top + size[0], left : left + size[1]]
