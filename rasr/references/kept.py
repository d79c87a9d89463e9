"""Kept references: whatever a fusion makes of a reference alone, so that it is made once per database image.

One safetensors file per image, named by the content hash of the image file; `kept.json` says which fusion
over which networks made them. Folders of earlier versions are read too: `latents.json` (the residual
branch's latents), and banks of ReFIR's injection, which have no such file: their names say all.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from rasr.checks import check_whole
from rasr.errors import RasrError
from rasr.fusion.base import Kept, ReferenceFusion
from rasr.image_io import ImageReadError, atomic_path
from rasr.references.reference import Reference

if TYPE_CHECKING:
    from rasr.backbones.one_step import OneStepBackbone

logger = logging.getLogger(__name__)

META_FILE, OLD_META_FILE = "kept.json", "latents.json"
RENAMED = {"z_ref": "latents"}
"""Tensors by their earlier names."""


@dataclass(frozen=True)
class StoreReport:
    """What `KeptReferences.store` did."""

    stored: int
    known: int
    bad: tuple[str, ...]
    """One line per image that could not be read."""
    nbytes: int = 0
    """Of all files that belong to the images."""


class KeptReferences:
    """A folder of what one fusion, over one backbone, keeps of references.

    Args:
        path: the folder; made with the first reference that is kept.
        fusion: whose references.
        backbone: of the net.
        size: side in pixels of the square that is cut from each image, for a fusion that does not keep any
            size; None takes what the folder has, which must be there then.

    Raises:
        RasrError: a folder of another fusion or of other weights, a damaged one, or one with other files.
    """

    def __init__(
        self, path: str | Path, fusion: ReferenceFusion, backbone: OneStepBackbone, *, size: int | None = None
    ) -> None:
        self.path = Path(path)
        self.fusion, self.backbone = fusion, backbone
        if self.path.is_file():
            raise RasrError(f"kept={path} is a file; give a folder")
        now = {"fusion": fusion.name, "networks": fusion.fingerprint(backbone)}
        before = self._read_meta()
        if before is not None and any(before[key] != now[key] for key in now):
            raise RasrError(
                f"kept={path} was made by other weights (fusion {before['fusion']}, networks "
                f"{before['networks']}; now {now['fusion']}, {now['networks']}); make it again in another "
                "folder, or leave kept= out"
            )
        self.size = None if fusion.keeps_any_size else self._size(before, size)
        self.meta = now if self.size is None else now | {"size": self.size}

    def _size(self, before: dict[str, Any] | None, size: int | None) -> int:
        if before is None and size is None:
            raise RasrError(
                f"kept={self.path} is no folder of kept references ({META_FILE} is missing); make it with "
                "python index.py ... kept=FOLDER"
            )
        if size is not None:
            factor = self.backbone.vae_factor
            check_whole("kept_size", size, least=1)
            if size % factor:
                raise RasrError(f"kept_size={size} does not fit the VAE; give a multiple of {factor}")
        known = None if before is None else before["size"]
        if None not in (known, size) and known != size:
            raise RasrError(
                f"{self.path} holds references kept at {known} pixels, not at kept_size={size}; give another "
                "folder, or remove this one"
            )
        return size if known is None else known

    def _read_meta(self) -> dict[str, Any] | None:
        """The folder's description, in today's words; None if there is none yet."""
        file = next((self.path / name for name in (META_FILE, OLD_META_FILE) if self._has(name)), None)
        if file is None:
            if self.path.is_dir() and any(not self._is_bank_folder(p) for p in self.path.iterdir()):
                raise RasrError(f"kept={self.path} holds other files; give an empty or a new folder")
            return None
        try:
            raw = json.loads(file.read_text("utf-8"))
            if file.name == OLD_META_FILE:
                raw = {"fusion": "residual", "networks": raw["vae"], "size": raw["size"]}
            meta = {"fusion": raw["fusion"], "networks": raw["networks"], "size": raw.get("size")}
            if not all(isinstance(meta[key], str) for key in ("fusion", "networks")):
                raise TypeError("not text")
            if not self.fusion.keeps_any_size and self.fusion.name == meta["fusion"]:
                check_whole("size", meta["size"], least=1)
        except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:
            mend = f"remove {self.path} and make it again with index.py"
            raise RasrError(f"{file} is damaged; {mend}") from error
        return meta

    def _has(self, name: str) -> bool:
        return (self.path / name).is_file()

    @staticmethod
    def _is_bank_folder(path: Path) -> bool:
        return path.is_dir() and len(path.name) == 2

    def get(self, reference: Reference) -> Kept | None:
        """What is kept of a reference, (1, ...) tensors.

        None if it is not here or, with a logged line, if its file is damaged: it can be made again.
        """
        if reference.key is None:
            return None
        path = self.file(reference)
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
        kept = {RENAMED.get(name, name): tensor for name, tensor in kept.items()}
        # Old files of latents have no batch dimension.
        return {k: v[None] if k == "latents" and v.ndim == 3 else v for k, v in kept.items()}

    def put(self, reference: Reference, kept: Kept) -> None:
        """Keeps a reference; the file appears only when complete."""
        if not self._has(META_FILE) and not self._has(OLD_META_FILE):
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_path(self.path / META_FILE) as temporary:
                temporary.write_text(json.dumps(self.meta) + "\n")
        path = self.file(reference)
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            save_file(
                {name: t.cpu().contiguous() for name, t in self.fusion.to_disk(kept).items()}, temporary
            )

    def store(self, references: Iterable[Reference], keep: Callable[[Reference], Kept]) -> StoreReport:
        """Keeps those that are not there yet; an interrupted call goes on when it is repeated.

        Args:
            references: with keys.
            keep: makes of one what is kept (`Restorer.keep`).
        """
        wanted = {self.file(reference): reference for reference in references}
        todo = [reference for reference in wanted.values() if self.get(reference) is None]
        bad = []
        for reference in tqdm(todo, desc="keeping references", unit="image"):
            try:
                self.put(reference, keep(reference))
            except ImageReadError as error:
                logger.error("%s", error)
                bad.append(str(error))
        nbytes = sum(file.stat().st_size for file in wanted if file.is_file())
        return StoreReport(len(todo) - len(bad), len(wanted) - len(todo), tuple(bad), nbytes)

    def file(self, reference: Reference) -> Path:
        """Where a reference is kept."""
        # Two levels: a folder of a million files is slow on most file systems.
        variant = self.fusion.kept_variant(self.backbone, reference.prompt)
        return self.path / reference.key[:2] / f"{reference.key}{variant}.safetensors"
