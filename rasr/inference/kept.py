"""Kept references: whatever a fusion makes of a reference alone, so that it is made once per database image.

One safetensors file per image, named by the content hash of the image file; `kept.json` says which fusion
over which networks made them. (Latents for the residual branch have a store of their own,
`rasr.inference.latents`: they outlive every training of the branch.)
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from rasr.errors import RasrError
from rasr.fusion.base import Kept
from rasr.image_io import ImageReadError, atomic_path, read_image
from rasr.inference.latents import StoreReport
from rasr.models import RASRNet

logger = logging.getLogger(__name__)

META_FILE = "kept.json"


class KeptReferences:
    """A folder of what one fusion, over one backbone, keeps of references.

    Args:
        path: the folder.
        fusion: name of the fusion.
        networks: fingerprint of the networks that made the files (`networks_fingerprint`).
    """

    def __init__(self, path: str | Path, *, fusion: str, networks: str) -> None:
        self.path = Path(path)
        self.fusion = fusion
        self.networks = networks

    @classmethod
    def of_net(cls, path: str | Path, net: RASRNet, *, create: bool) -> KeptReferences:
        """Opens a folder for a net.

        Args:
            path: the folder.
            net: with a fusion whose references keep their size.
            create: begin the folder if it is not there; else that is an error.

        Raises:
            RasrError: no such folder, a damaged one, or one of another net or fusion.
        """
        if net.fusion is None or not net.fusion.keeps_any_size:
            raise RasrError(
                f"kept={path}: these weights keep nothing but latents of references; give latents=FOLDER, or "
                "weights with fusion=correspondence"
            )
        store = cls(path, fusion=net.fusion.name, networks=networks_fingerprint(net))
        meta = store.path / META_FILE
        if not meta.is_file():
            if not create:
                raise RasrError(
                    f"kept={path} is no folder of kept references ({META_FILE} is missing); make it with "
                    "python index.py ... kept=FOLDER"
                )
            if store.path.is_dir() and any(store.path.iterdir()):
                raise RasrError(f"kept={path} holds other files; give an empty or a new folder")
            store.path.mkdir(parents=True, exist_ok=True)
            with atomic_path(meta) as temporary:
                temporary.write_text(json.dumps({"fusion": store.fusion, "networks": store.networks}) + "\n")
            return store
        try:
            before = json.loads(meta.read_text())
            known = (before["fusion"], before["networks"])
        except (ValueError, TypeError, KeyError, OSError) as error:
            raise RasrError(f"{meta} is damaged; remove {path} and make it again with index.py") from error
        if known != (store.fusion, store.networks):
            raise RasrError(
                f"kept={path} was made by other weights (fusion {known[0]}, networks {known[1]}; now "
                f"{store.fusion}, {store.networks}); make it again in another folder, or leave kept= out"
            )
        return store

    def get(self, key: str) -> Kept | None:
        """What is kept, (1, ...) tensors, of the reference with that key (`Reference.key`).

        None if it is not here or, with a logged line, if its file is damaged: it can be made again.
        """
        path = self.file(key)
        if not path.is_file():
            return None
        try:
            kept = load_file(path)
            for name, tensor in kept.items():
                if tensor.is_floating_point() and not tensor.isfinite().all():
                    raise ValueError(f"tensor {name} holds NaN or infinity")
        except (SafetensorError, ValueError, OSError) as error:
            logger.warning("%s is damaged (%s) and is made again", path, error)
            return None
        return kept

    def put(self, key: str, kept: Kept) -> None:
        """Keeps a reference; the file appears only when complete."""
        path = self.file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in kept.items()}, temporary)

    def store(self, images: Iterable[tuple[str, Path]], keep: Callable[[Tensor], Kept]) -> StoreReport:
        """Keeps the images that are not there yet; an interrupted call goes on when it is repeated.

        Args:
            images: (content hash, path) of each image.
            keep: makes of an image (3, H, W) in [0, 1] what is kept (`Restorer.keep`).
        """
        images = dict(images)
        todo = [(key, path) for key, path in images.items() if self.get(key) is None]
        bad = []
        for key, path in tqdm(todo, desc="keeping references", unit="image"):
            try:
                self.put(key, keep(read_image(path)))
            except ImageReadError as error:
                logger.error("%s", error)
                bad.append(str(error))
        return StoreReport(len(todo) - len(bad), len(images) - len(todo), tuple(bad))

    def file(self, key: str) -> Path:
        """Where a reference is kept."""
        # Two levels: a folder of a million files is slow on most file systems.
        return self.path / key[:2] / f"{key}.safetensors"


def networks_fingerprint(net: RASRNet) -> str:
    """Short hash of the weights on which kept references depend; the same for fp32 and bf16 copies."""
    digest = hashlib.sha256(json.dumps(net.fusion.settings(), sort_keys=True).encode())
    for part in net.fusion.fingerprinted(net.backbone):
        _add_weights(digest, part)
    return digest.hexdigest()[:16]


def _add_weights(digest: hashlib._Hash, part: nn.Module) -> None:
    for name, tensor in sorted(part.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().bfloat16().contiguous().view(torch.uint8).numpy().tobytes())
