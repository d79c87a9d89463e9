"""What can stand in a row of a table: anything that gives a folder of restored images.

`conf/options/baselines.yaml` names them; one of your own is a class like these and an entry there, or a key
`+baselines.NAME={_target_: MODULE.CLASS, ...}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from rasr.errors import RasrError
from rasr.evaluation.folders import files_by_name
from rasr.image_io import content_hash, list_images
from rasr.image_ops import resize_bicubic
from rasr.inference import list_photographs, restore_photographs


class Baseline(Protocol):
    """Gives the restorations of a folder of photographs."""

    label: str
    """Its name in tables."""
    needs_lq: bool
    """Whether it restores, so that there must be photographs."""

    def restore_folder(self, lq: Path | None, output: Path, device: torch.device) -> Path:
        """Restore every photograph.

        Args:
            lq: folder of photographs; None where nothing has to be restored.
            output: folder that a baseline which restores writes into.
            device: where it computes.

        Returns:
            The folder with the restorations, named like the photographs.
        """


class FolderBaseline:
    """Another's method: the images that its own code wrote.

    Args:
        label: name in tables.
        folder: directory of its outputs.
    """

    needs_lq = False

    def __init__(self, label: str, folder: str) -> None:
        self.label = label
        self.folder = Path(folder)
        list_images(self.folder)  # a folder that is not there shows before anything is restored

    def restore_folder(self, lq: Path | None, output: Path, device: torch.device) -> Path:
        """See `Baseline`."""
        return self.folder


class BicubicBaseline:
    """Bicubic enlargement, the baseline of baselines.

    Args:
        label: name in tables.
        scale: enlargement per side.
    """

    needs_lq = True

    def __init__(self, label: str = "Bicubic", scale: int = 4) -> None:
        self.label = label
        self.scale = scale

    def restore_folder(self, lq: Path | None, output: Path, device: torch.device) -> Path:
        """See `Baseline`."""
        return _restore_each(photographs_of(lq, self.label), output, self._restore, {"bicubic": self.scale})

    def _restore(self, lq: Tensor) -> Tensor:
        size = (lq.shape[-2] * self.scale, lq.shape[-1] * self.scale)
        return resize_bicubic(lq[None], size)[0]


class SpandrelBaseline:
    """A network that spandrel knows (BSRGAN, Real-ESRGAN, HAT and many more), from its official weight file.

    Args:
        label: name in tables.
        weights: `.pth` or `.safetensors` as its authors published it; spandrel never runs code from it.
    """

    needs_lq = True

    def __init__(self, label: str, weights: str) -> None:
        self.label = label
        self.weights = weights
        if not Path(weights).is_file():
            raise RasrError(f"{weights}: no such file; give the weight file of {label}")

    def restore_folder(self, lq: Path | None, output: Path, device: torch.device) -> Path:
        """See `Baseline`."""
        lq = photographs_of(lq, self.label)
        model = load_spandrel(self.weights, device)

        def restore(image: Tensor) -> Tensor:
            with torch.inference_mode():
                return model(image[None].to(device))[0].clamp(0, 1).cpu()

        return _restore_each(lq, output, restore, {"spandrel": content_hash(self.weights)})


def gather_baselines(
    chosen: Mapping[str, Baseline] | None, folders: Mapping[str, str] | None
) -> dict[str, Baseline]:
    """All rows of a comparison by key.

    Args:
        chosen: by key.
        folders: {key: folder of outputs} of further ones; the key is the label too.
    """
    baselines = dict(chosen or {})
    folders = {} if folders is None else folders
    if not isinstance(folders, Mapping):
        raise RasrError(f"folders={folders} has no names; write 'folders={{NAME: {folders}}}'")
    if taken := baselines.keys() & folders.keys():
        raise RasrError(f"{', '.join(sorted(taken))}: a baseline and a folder of one name; rename the folder")
    baselines |= {key: FolderBaseline(key, folder) for key, folder in folders.items()}
    labels = [baseline.label for baseline in baselines.values()]
    twins = sorted({label for label in labels if labels.count(label) > 1})
    if twins:
        raise RasrError(f"two baselines are called {twins[0]}; rename one by baselines.NAME.label=TEXT")
    return baselines


def load_spandrel(weights: str, device: torch.device) -> Any:
    """A spandrel model in evaluation mode; (1, 3, h, w) in [0, 1] -> (1, 3, scale * h, scale * w)."""
    try:
        import spandrel
    except ImportError as error:
        raise RasrError(f"{weights} needs spandrel; install it with pip install -e '.[eval]'") from error
    try:
        model = spandrel.ModelLoader(device=device).load_from_file(weights)
    except Exception as error:  # of torch, pickle and each architecture
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RasrError(f"{weights}: spandrel cannot load it ({reason[:160]}); give another file") from error
    if not isinstance(model, spandrel.ImageModelDescriptor):
        raise RasrError(f"{weights}: a network for {model.purpose}, not for restoring an image; give another")
    return model.eval()


def photographs_of(lq: Path | None, label: str) -> Path:
    """`lq`, or an error that asks for it."""
    if lq is None:
        raise RasrError(f"{label} has to restore the photographs; give them by lq=FOLDER")
    return lq


@dataclass(frozen=True)
class _Enlargement:
    """A function of the photograph alone, for `restore_photographs`."""

    function: Callable[[Tensor], Tensor]

    def restore(self, lq: Tensor, ref: Sequence[Any], *, prompt: str, traced: list[Any]) -> Tensor:
        return self.function(lq)

    def is_kept(self, reference: Any) -> bool:
        return False


def _restore_each(
    root: Path, output: Path, restore: Callable[[Tensor], Tensor], settings: dict[str, Any]
) -> Path:
    """Write a PNG per photograph; what an earlier run has made is kept, as `settings` say all there is."""
    files_by_name(root)  # two photographs of one name are refused: results are matched by it
    photographs = list_photographs(root, output)
    restore_photographs(photographs, output, _Enlargement(restore), settings=settings, keep_finished=True)
    return output
