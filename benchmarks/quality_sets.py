"""The fixed degraded sets of `benchmarks.quality`: which photographs, which crops, which seeds."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from rasr.degradation import RealESRGANDegradation
from rasr.errors import RasrError
from rasr.evaluation import write_json
from rasr.image_io import content_hash, list_images, read_image, write_png
from rasr.preparation.sets import split_categories
from rasr.seeding import sample_seed

SCALE = 4
MULTIPLE = 16
"""Sides of the ground truth are multiples of it, whatever the net: one set for all nets. `Restorer` pads."""
MAX_SIDE, MIN_SIDE = 512, 128  # of the ground truth, pixels

ALL_METRICS = ("psnr", "ssim", "fsim", "gmsd", "vif", "niqe")
HALF_METRICS = ("psnr", "ssim", "fsim", "gmsd", "vif")  # NIQE wants larger images
QUICK_METRICS = ("psnr", "ssim", "gmsd")

# {key: (title, folder)} of the sets of whole photographs.
WHOLE_SETS = {
    "set14": ("Set14", "photos/Set14/HR"),
    "bsd100": ("BSD100", "photos/bsds500/val"),
    "urban100": ("Urban100 crops", "photos/urban100_crop512"),
    "categories": ("Category test photos", "categories"),
}
SET_KEYS = (*WHOLE_SETS, "halves", "sceaux")


class Box(NamedTuple):
    """A crop, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, image: Tensor) -> Tensor:
        """The part of an image (3, H, W)."""
        return image[:, self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class Case:
    """One test image."""

    name: str
    photo: Path
    ref: Path | None = None
    """Reference that comes with the set, a file of its own."""
    origin: str = ""
    """Key of the set that the photograph belongs to."""


@dataclass(frozen=True)
class QualitySet:
    """One test set."""

    key: str
    title: str
    cases: list[Case]
    reference: str | None = None
    """What shows the same thing: `same`, the other half of the photograph; `sceaux`, another view."""
    metrics: tuple[str, ...] = ALL_METRICS


def centre_box(height: int, width: int) -> Box:
    """The test crop of a whole photograph: as large as can be, at most 512 x 512."""
    sides = [min(side, MAX_SIDE) // MULTIPLE * MULTIPLE for side in (height, width)]
    return Box((height - sides[0]) // 2, (width - sides[1]) // 2, *sides)


def half_boxes(height: int, width: int) -> tuple[Box, Box] | None:
    """Test crop and reference crop without a common pixel: the halves of the longer side.

    Returns:
        None where a half would have a side below 128.
    """
    if min(height, width, max(height, width) // 2) < MIN_SIDE:
        return None
    if height > width:
        middle = height // 2
        first, second = centre_box(middle, width), centre_box(height - middle, width)
        return first, second._replace(top=second.top + middle)
    middle = width // 2
    first, second = centre_box(height, middle), centre_box(height, width - middle)
    return first, second._replace(left=second.left + middle)


def image_seed(seed: int, set_key: str, name: str) -> int:
    """Seed of an image's degradation; it depends on nothing else."""
    return sample_seed(seed, set_key, name)


def find_sets(photos: str | Path, limit: int | None = None) -> tuple[list[QualitySet], list[str]]:
    """The sets below a folder.

    Args:
        photos: folder with `photos/`, `categories/` and `refsr/`.
        limit: images per set; None takes all.

    Returns:
        The sets, and a line for each that is absent.
    """
    photos = Path(photos)
    sets, absent = [], []
    for key, (title, place) in WHOLE_SETS.items():
        if (photos / place).is_dir():
            sets.append(QualitySet(key, title, list(_whole_cases(key, photos / place))[:limit]))
        else:
            absent.append(f"{title}: no folder {photos / place}")
    if not sets:
        raise RasrError(f"--photos {photos}: no set is there; expected {place} or others of the layout in it")
    halves = [replace(case, name=f"{one.key}_{case.name}") for one in sets for case in one.cases]
    sets.append(QualitySet("halves", "Halves of all these photos", halves, "same", HALF_METRICS))
    pairs = photos / "refsr" / "sceaux_sets" / "pairs.csv"
    if pairs.is_file():
        sets.append(QualitySet("sceaux", "Sceaux", list(_sceaux_cases(pairs))[:limit], "sceaux"))
    else:
        absent.append(f"Sceaux: no file {pairs}")
    return sets, absent


def _whole_cases(key: str, folder: Path) -> Iterator[Case]:
    if key == "categories":
        photos = [photo for _, test in split_categories(folder).values() for photo in test]
    else:
        photos = list_images(folder)
    for photo in photos:
        name = f"{photo.parent.name}_{photo.stem}" if key == "categories" else photo.stem
        yield Case(name, photo, origin=key)


def _sceaux_cases(pairs: Path) -> Iterator[Case]:
    with pairs.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if row["level"] == "1":
                photo, ref = (pairs.parent / f"{row['set']}_{end}" for end in ("0.png", "1.jpg"))
                yield Case(row["set"], photo, ref, "sceaux")


def make_set(quality_set: QualitySet, output: Path, *, preset: str, seed: int) -> QualitySet:
    """Write `gt/`, `lq/` and, where the set has references, `ref/` as 8-bit PNGs; what is there is kept.

    Returns:
        The set without the photographs that are too small for its crops.
    """
    settings = {
        "preset": preset,
        "seed": seed,
        "scale": SCALE,
        "photos": {case.name: content_hash(case.photo) for case in quality_set.cases},
        "refs": {case.name: content_hash(case.ref) for case in quality_set.cases if case.ref is not None},
    }
    file = output / "set.json"
    if file.is_file() and json.loads(file.read_text("utf-8")) != settings:
        raise RasrError(
            f"{output} was made with other photographs, --preset, --seed or --limit; give another --output"
        )
    degradation = RealESRGANDegradation(preset, scale=SCALE)  # before the preset is written down
    write_json(settings, file)
    kept = []
    for case in tqdm(quality_set.cases, desc=f"making {quality_set.key}", unit="image"):
        crops = _crops(quality_set, case)
        if crops is None:
            continue
        kept.append(case)
        gt, ref = crops
        if not (output / "gt" / f"{case.name}.png").is_file():  # written last
            seeds = torch.tensor([image_seed(seed, quality_set.key, case.name)])
            write_png(degradation(gt[None], seeds=seeds)[0], output / "lq" / f"{case.name}.png")
            if ref is not None:
                write_png(ref, output / "ref" / f"{case.name}.png")
            write_png(gt, output / "gt" / f"{case.name}.png")
    return replace(quality_set, cases=kept)


def _crops(quality_set: QualitySet, case: Case) -> tuple[Tensor, Tensor | None] | None:
    """Ground truth and the set's own reference, or None where the photograph is too small."""
    photo = read_image(case.photo)
    height, width = photo.shape[-2:]
    if quality_set.reference == "same":
        boxes = half_boxes(height, width)
        return None if boxes is None else (boxes[0].cut(photo), boxes[1].cut(photo))
    if min(height, width) < MIN_SIDE:
        return None
    return centre_box(height, width).cut(photo), None if case.ref is None else read_image(case.ref)
