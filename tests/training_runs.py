"""Short runs of train.py on a small set, for the tests of the command."""

import csv
from pathlib import Path

import torch

from rasr.image_io import write_png
from rasr.models import make_tiny_backbone
from tests.helpers import run_entry


def make_folder(folder: Path) -> Path:
    """A small backbone and a manifest of 8 training and 2 validation images with references."""
    make_tiny_backbone(seed=0).save_pretrained(folder / "backbone")
    generator = torch.Generator().manual_seed(0)
    lines = ["image,split,category,prompt,references"]
    for i in range(10):
        # Smooth colour fields: a few steps are enough to learn something about them.
        coarse = torch.rand(1, 3, 4, 4, generator=generator)
        image = torch.nn.functional.interpolate(coarse, size=96, mode="bicubic").clamp(0, 1)[0]
        write_png(image, folder / "data" / f"{i}.png")
        write_png(image.flip(-1), folder / "data" / f"ref{i}.png")
        lines.append(f"{i}.png,{'train' if i < 8 else 'test'},,,ref{i}.png")
    (folder / "data" / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def train(folder: Path, name: str, *overrides: str):
    """A short run of the small network on the CPU; its outputs lie in folder/name."""
    flags = [text for text in overrides if text.startswith("--")]
    return run_entry(
        "train.py",
        *flags,
        "debug=default",
        f"model.backbone={folder}/backbone",
        "gt_size=64",
        f"paths.data_dir={folder}/data",
        f"paths.output_dir={folder}/{name}",
        "data.batch_size=2",
        *(text for text in overrides if text not in flags),
        cwd=folder,
    )


def metrics(root: Path) -> list[dict[str, str]]:
    with (root / "logs" / "version_0" / "metrics.csv").open() as stream:
        return list(csv.DictReader(stream))
