"""Checkpoint files that are either complete or absent, and never pickled objects."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, syncs it to disk, then renames it; a kill at any moment loses nothing."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Saves `checkpoint` at `path` on the local file system."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        # One name for all attempts: what a kill left behind is overwritten, not piled up.
        temporary = path.with_name(f".{path.name}.tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> Any:
        """Loads with `weights_only=True`, always."""
        return torch.load(path, map_location=map_location, weights_only=True)
