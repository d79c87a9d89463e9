"""Where weights are: a file, a folder, the hub, or what comes with the repository."""

from __future__ import annotations

from pathlib import Path

from rasr.backbones.files import INDEX_FILE, SUBFOLDERS
from rasr.errors import RasrError
from rasr.fusion.registry import fusion_files, get_fusion
from rasr.pretrained import fetch_hub_folder, is_hub_id

SHIPPED_WEIGHTS = Path(__file__).parents[2] / "weights" / "rasr-small"
"""The weights that come with the repository."""

# A Stable Diffusion repository holds every tensor several times; one copy is enough.
_FILES = ("*.json", "*.txt", "model.safetensors", "diffusion_pytorch_model.safetensors")


def hub_files() -> list[str]:
    """Names and patterns of all that belongs to a net in a repository of the hub."""
    parts = [f"{part}/{file}" for part in SUBFOLDERS for file in _FILES]
    return [INDEX_FILE, *fusion_files().values(), *parts]


def find_fusion_file(folder: Path, name: str | None) -> Path | None:
    """The file of a folder's fusion.

    Args:
        folder: of `save_pretrained`.
        name: of the fusion; None is the first of `fusion_files` that is there, or None for a backbone alone.

    Raises:
        RasrError: the folder does not hold that fusion.
    """
    if name is None:
        files = (folder / file for file in fusion_files().values())
        return next((file for file in files if file.is_file()), None)
    file = folder / get_fusion(name).file_name
    if not file.is_file():
        raise RasrError(f"{folder} has no fusion {name} ({file.name} is missing); leave out fusion={name}")
    return file


def find_weights(weights: str | Path | None, **hub_options: object) -> Path:
    """The file or folder of some weights, downloaded if they are a hub id.

    Args:
        weights: file, folder, or hub id `owner/name`; None is `SHIPPED_WEIGHTS`.
        hub_options: of `huggingface_hub.snapshot_download`.

    Raises:
        RasrError: nothing there, or the hub is out of reach.
    """
    if weights is None:
        if not SHIPPED_WEIGHTS.is_dir():
            raise RasrError(
                f"no weights= given, and the small ones are not at {SHIPPED_WEIGHTS}; add weights=FILE, "
                "DIRECTORY or HUB_ID, or work in a full copy of the repository"
            )
        return SHIPPED_WEIGHTS
    path = Path(weights)
    if path.exists():
        return path
    if str(weights).count("/") == 1 and path.suffix not in (".safetensors", ".ckpt") and is_hub_id(weights):
        return fetch_hub_folder(str(weights), hub_files(), key="weights", **hub_options)
    raise RasrError(
        f"weights={path} does not exist; give a .safetensors or .ckpt file of training, a directory of a net "
        "or a backbone, or a hub id"
    )


def is_multi_step(weights: str | Path) -> bool:
    """Whether that is the directory of a multi-step ControlNet restorer."""
    return (Path(weights) / "controlnet").is_dir()
