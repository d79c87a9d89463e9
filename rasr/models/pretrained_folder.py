"""A net as one folder that can be moved, published and loaded by its hub id.

The folder is a diffusers directory with the backbone (`model_index.json vae/ unet/ text_encoder/ tokenizer/
scheduler/`), a file per fusion (`correspondence.safetensors`, `reference_branch.safetensors`) with what
training changed in it and its `RASRNetConfig` (the rest of the residual branch is a copy of the backbone's
encoder), and a model card. Without such a file it is a backbone alone.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import torch
from huggingface_hub import HfApi, ModelCard, ModelCardData
from torch import nn

from rasr.backbones.lora import cast_frozen
from rasr.errors import RasrError, one_line
from rasr.fusion.registry import fusion_files
from rasr.models.loading import load_net
from rasr.models.weight_files import write_fusion

Folder = TypeVar("Folder", bound="PretrainedFolder")

CARD_FILE = "README.md"

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

    backbone: Any
    fusion: Any

    def save_pretrained(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
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
        folder = Path(folder)
        check_is_no_file(folder)
        if self.fusion is not None:
            self.fusion.check_can_be_saved()
            if self.backbone.osediff_weights is not None:
                raise RasrError(
                    f"this net's backbone holds the OSEDiff weights {self.backbone.osediff_weights}, but its "
                    "branch starts from the base weights, and one folder cannot hold both; share the weight "
                    "file of train.py instead, which names both"
                )
        # Not the fusion of another net over this backbone, even if writing is interrupted.
        for file in fusion_files().values():
            (folder / file).unlink(missing_ok=True)
        self.backbone.save_pretrained(folder, dtype=dtype)
        if self.fusion is not None:
            write_fusion(self, folder / self.fusion.file_name, backbone="", dtype=dtype)
        if not (folder / CARD_FILE).exists():
            model_card(self, folder.resolve().name).save(folder / CARD_FILE)
        return folder

    def save_fusion(self, folder: str | Path, *, dtype: torch.dtype = torch.float16) -> Path:
        """Writes the fusion alone into a folder that `save_pretrained` wrote with the same backbone.

        Returns:
            The file.
        """
        file = Path(folder) / self.fusion.file_name
        write_fusion(self, file, backbone="", dtype=dtype)
        return file

    @classmethod
    def from_pretrained(
        cls: type[Folder],
        folder: str | Path,
        *,
        torch_dtype: torch.dtype = torch.float32,
        fusion: str | None = None,
        merge: bool = False,
        **hub_options: object,
    ) -> Folder:
        """Loads what `save_pretrained` wrote, in evaluation mode.

        Args:
            folder: folder, or hub id such as `owner/name`; whatever `rasr.models.loading.load_net` takes.
            torch_dtype: of the frozen tensors; the trainable ones stay in float32.
            fusion: see `rasr.models.loading.load_net`, as `merge`.
            merge: False keeps the net trainable.
            hub_options: of `huggingface_hub.snapshot_download`, such as `revision` and `token`.

        Raises:
            RasrError: see `rasr.models.loading.load_net`.
        """
        net = load_net(cls, folder, fusion=fusion, merge=merge, **hub_options)
        cast_frozen(net, torch_dtype)
        return net

    def push_to_hub(
        self,
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


def model_card(net: nn.Module, name: str) -> ModelCard:
    """A short card with the hub's metadata, for people to fill in."""
    # A backbone knows neither its scale nor whether it was trained: the card promises no more than is known.
    what = "A one-step super-resolution backbone."
    if net.fusion is not None:
        what = f"Restores photographs at {net.config.scale} times their size, with or without a reference."
    data = ModelCardData(library_name="rasr", pipeline_tag="image-to-image", tags=["super-resolution"])
    return ModelCard(f"---\n{data.to_yaml()}\n---\n\n" + CARD.format(name=name, what=what))
