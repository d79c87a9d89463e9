"""A net as one folder that can be moved, published and loaded by its hub id.

The folder is a diffusers directory with the backbone (`model_index.json vae/ unet/ text_encoder/ tokenizer/
scheduler/`), a file per fusion (`correspondence.safetensors`, `reference_branch.safetensors`) with what
training changed in it and its `RASRNetConfig` (the rest of the residual branch is a copy of the backbone's
encoder), and a model card. Without such a file it is a backbone alone.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData

from rasr.errors import RasrError, one_line
from rasr.models.backbone_files import INDEX_FILE, SUBFOLDERS
from rasr.models.lora import cast_frozen
from rasr.pretrained import fetch_hub_folder, is_hub_id

if TYPE_CHECKING:
    from rasr.models.rasr_net import RASRNet

FUSION_FILES = {
    "correspondence": "correspondence.safetensors",
    "residual": "reference_branch.safetensors",
}
"""Of the fusions that a folder may hold, the default first; others are called after their name."""
CARD_FILE = "README.md"
SHIPPED_WEIGHTS = Path(__file__).parents[2] / "weights" / "rasr-small"
"""The weights that come with the repository."""

# A Stable Diffusion repository holds every tensor several times; one copy is enough.
_FILES = ("*.json", "*.txt", "model.safetensors", "diffusion_pytorch_model.safetensors")
HUB_FILES = (
    INDEX_FILE,
    *FUSION_FILES.values(),
    *(f"{part}/{file}" for part in SUBFOLDERS for file in _FILES),
)

CARD = """\
# {name}

{what} Made with RASR.

```sh
python infer.py input=photo.jpg output=restored weights={name}
```

```python
from rasr.models import RASRNet

net = RASRNet.from_pretrained("{name}")
```

What it was trained on, its figures, its limits: not written down yet.
"""


class PretrainedFolder:
    """`save_pretrained`, `from_pretrained` and `push_to_hub` of `RASRNet`."""

    def save_pretrained(self: RASRNet, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
        """Writes backbone and branch as one folder; see the module's text.

        A `README.md` that is there already stays as it is.

        Args:
            folder: made if need be; parts of an earlier net in it are replaced.
            dtype: of the tensors on disk.

        Returns:
            The folder.

        Raises:
            RasrError: OSEDiff's weights are merged into the backbone of a branch, which starts from the base
                weights: one folder cannot hold both.
            ValueError: the branch's LoRA is merged.
        """
        from rasr.models.weights import check_has_fusion_to_save, write_fusion  # they build on RASRNet

        folder = Path(folder)
        check_is_no_file(folder)
        if self.fusion is not None:
            check_has_fusion_to_save(self)
            if self.backbone.osediff_weights is not None:
                raise RasrError(
                    f"this net's backbone holds the OSEDiff weights {self.backbone.osediff_weights}, but its "
                    "branch starts from the base weights, and one folder cannot hold both; share the weight "
                    "file of train.py instead, which names both"
                )
        # Not the fusion of another net over this backbone, even if writing is interrupted.
        for file in FUSION_FILES.values():
            (folder / file).unlink(missing_ok=True)
        self.backbone.save_pretrained(folder, dtype=dtype)
        if self.fusion is not None:
            write_fusion(self, folder / fusion_file(self.fusion.name), backbone="", dtype=dtype)
        if not (folder / CARD_FILE).exists():
            model_card(self, folder.resolve().name).save(folder / CARD_FILE)
        return folder

    def save_fusion(self: RASRNet, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
        """Writes the fusion alone into a folder that `save_pretrained` wrote with the same backbone.

        Returns:
            The file.
        """
        from rasr.models.weights import write_fusion

        file = Path(folder) / fusion_file(self.fusion.name)
        write_fusion(self, file, backbone="", dtype=dtype)
        return file

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        torch_dtype: torch.dtype = torch.float32,
        fusion: str | None = None,
        merge: bool = False,
        **hub_options: object,
    ) -> RASRNet:
        """Loads what `save_pretrained` wrote, in evaluation mode.

        Args:
            folder: folder, or hub id such as `owner/name`; whatever `load_rasr_net` takes.
            torch_dtype: of the frozen tensors; the trainable ones stay in float32.
            fusion: see `load_rasr_net`, as `merge`.
            merge: False keeps the net trainable.
            hub_options: of `huggingface_hub.snapshot_download`, such as `revision` and `token`.

        Raises:
            RasrError: see `load_rasr_net`.
        """
        from rasr.models.weights import load_rasr_net  # it builds on RASRNet

        net = load_rasr_net(folder, fusion=fusion, merge=merge, **hub_options)
        cast_frozen(net, torch_dtype)
        return net

    def push_to_hub(
        self: RASRNet,
        repo_id: str,
        *,
        dtype: torch.dtype = torch.float16,
        private: bool | None = None,
        token: str | None = None,
        commit_message: str = "Upload RASRNet",
    ) -> str:
        """Publishes the net as a repository of the Hugging Face hub; a model card that is there stays.

        Args:
            repo_id: `owner/name`; made if need be.
            dtype: see `save_pretrained`.
            private: whether a new repository is private; None is the owner's default.
            token: access token; None takes the one that `hf auth login` stored.
            commit_message: of the one commit.

        Returns:
            The address of the commit.

        Raises:
            RasrError: see `save_pretrained`; or the hub refuses or is out of reach.
        """
        with TemporaryDirectory() as temporary:
            model_card(self, repo_id).save(Path(temporary) / CARD_FILE)
            return upload_folder(
                self.save_pretrained(temporary, dtype=dtype),
                repo_id,
                private=private,
                token=token,
                commit_message=commit_message,
                keep_card=True,
            )


def fusion_file(name: str) -> str:
    """What a folder calls the file of a fusion."""
    return FUSION_FILES.get(name, f"{name}.safetensors")


def find_fusion_file(folder: Path, name: str | None) -> Path | None:
    """The file of a folder's fusion.

    Args:
        folder: of `save_pretrained`.
        name: of the fusion; None is the first of `FUSION_FILES` that is there, or None for a backbone alone.

    Raises:
        RasrError: the folder does not hold that fusion.
    """
    if name is None:
        files = (folder / file for file in FUSION_FILES.values())
        return next((file for file in files if file.is_file()), None)
    file = folder / fusion_file(name)
    if not file.is_file():
        raise RasrError(f"{folder} has no fusion {name} ({file.name} is missing); leave out fusion={name}")
    return file


def check_is_no_file(folder: Path) -> None:
    """Raises a RasrError if there is a file where a folder shall be written."""
    for path in (folder, *folder.parents):
        if path.exists() and not path.is_dir():
            raise RasrError(f"{path} is a file; give the name of a folder")


def upload_folder(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload RASRNet",
    keep_card: bool = False,
) -> str:
    """Uploads a folder of `save_pretrained`, with its card and pictures, in one commit.

    Args:
        folder: the folder.
        repo_id: see `PretrainedFolder.push_to_hub`, as `private`, `token` and `commit_message`.
        keep_card: leave a model card that the repository has already.

    Returns:
        The address of the commit.

    Raises:
        RasrError: the hub refuses or is out of reach.
    """
    try:
        api = HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        kept = [CARD_FILE] if keep_card and api.file_exists(repo_id, CARD_FILE) else None
        return api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=commit_message, ignore_patterns=kept
        )
    except Exception as error:  # the hub, httpx and the name's check each have their own
        raise RasrError(
            f"cannot push to {repo_id} ({one_line(error, first=True)}); log in by `hf auth login`, and "
            "check name and connection"
        ) from error


def model_card(net: RASRNet, name: str) -> ModelCard:
    """A short card with the hub's metadata, for people to fill in."""
    # A backbone knows neither its scale nor whether it was trained: the card promises no more than is known.
    what = "A one-step super-resolution backbone."
    if net.fusion is not None:
        what = f"Restores photographs at {net.config.scale} times their size, with or without a reference."
    data = ModelCardData(library_name="rasr", pipeline_tag="image-to-image", tags=["super-resolution"])
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + CARD.format(name=name, what=what))


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
        return fetch_hub_folder(str(weights), HUB_FILES, key="weights", **hub_options)
    raise RasrError(
        f"weights={path} does not exist; give a .safetensors or .ckpt file of training, a directory of a net "
        "or a backbone, or a hub id"
    )
