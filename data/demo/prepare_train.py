"""Make the data set of `make demo-train` from photographs inside the scikit-image and scikit-learn packages.

Every photograph is one category. It is cut into vertical bands that belong to training and to the database
in turn; each database band gives up one square in its middle for the held-out test crop. So the three kinds
of crops share no pixel, and what is beside a test crop, and hence alike, is in the database.

Written under the output folder, the same bytes on every run:

    train/<category>/*.png       crops to train on
    database/<category>/*.png    crops to retrieve references from
    test/<category>/*.png        held-out ground truth
    lr/<category>/*.png          the same, degraded and 1/4 of the size, to restore
    manifest.csv                 the train and test crops (columns: data/README.md)
    boxes.csv                    where in which photograph every crop was cut
    prepared.json                what made all this; it makes a second run return at once
"""

import argparse
import csv
import json
import logging
import math
from collections import Counter
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from photographs import find_photograph
from torch import Tensor
from tqdm import tqdm

from rasr.data import Row, write_manifest
from rasr.degradation import RealESRGANDegradation
from rasr.errors import RasrError
from rasr.image_io import atomic_path, content_hash, read_image, write_png
from rasr.seeding import sample_seed

log = logging.getLogger("prepare_train")

# Of motorcycle_left/right only one: they are two views of one scene.
PHOTOS = {
    "skimage/data": (
        *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
        *("gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
    ),
    "sklearn/datasets/images": ("china.jpg", "flower.jpg"),
}
CROP_SIZE = 128
SCALE = 4
LONGEST_SIDE = 640  # larger photographs are shrunk: their crops would show next to nothing
STRIDES = {"train": 48, "database": 64}
SEED = 20
RECORD = "prepared.json"


@dataclass(frozen=True)
class Box:
    """A crop: pixels left <= x < right, top <= y < bottom of a photograph of size width x height."""

    photo: str
    split: str
    category: str
    path: str
    left: int
    top: int
    right: int
    bottom: int
    width: int
    height: int


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/demo/data"), help="folder to write to")
    try:
        prepare(parser.parse_args().output)
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")


def prepare(output: Path) -> list[Box]:
    """Write the data set, unless it is there already; return all its crops."""
    photos = find_photos()
    recipe = {"code": content_hash(__file__), "photos": {path.name: content_hash(path) for path in photos}}
    old_recipe, old_boxes = _read_record(output)
    if old_recipe == recipe and all((output / path).is_file() for path in _files(old_boxes)):
        log.info("%s is complete: %s", output, _summary(old_boxes))
        return old_boxes

    boxes, rows = [], []
    degradation = RealESRGANDegradation("osediff", scale=SCALE)
    for path in tqdm(photos, desc="photographs", unit="photo"):
        photo = _shrink(read_image(path))
        for box in plan_boxes(path.stem, photo.shape[2], photo.shape[1]):
            crop = photo[:, box.top : box.bottom, box.left : box.right]
            write_png(crop, output / box.path)
            boxes.append(box)
            if box.split != "database":
                rows.append(Row(image=box.path, split=box.split, category=box.category))
            if box.split == "test":
                seeds = torch.tensor([sample_seed(SEED, box.path)])
                write_png(degradation(crop[None], seeds=seeds)[0], output / lr_path(box))
    if not boxes:
        raise RasrError("no photograph was found; install scikit-image and scikit-learn anew")
    for path in _files(old_boxes) - _files(boxes):  # else the index would still find them
        (output / path).unlink(missing_ok=True)
    write_manifest(output / "manifest.csv", sorted(rows, key=lambda row: (row.split, row.image)))
    _write_boxes(output / "boxes.csv", boxes)
    with atomic_path(output / RECORD) as temporary:
        temporary.write_text(json.dumps({**recipe, "boxes": [asdict(box) for box in boxes]}, indent=1))
    log.info("%s is ready: %s", output, _summary(boxes))
    return boxes


def find_photos() -> list[Path]:
    """Return the photographs that the installed packages bring."""
    found = []
    for folder, names in PHOTOS.items():
        for name in names:
            path = find_photograph(folder, name)
            if path is not None:
                found.append(path)
            else:
                log.warning("%s is not in this version of its package, left out", name)
    return found


def plan_boxes(name: str, width: int, height: int) -> list[Box]:
    """Cut a photograph into crops; an empty list if it is too small for three bands and a held-out crop.

    The bands are equally wide, train first: train, database, train, ... A database band loses a square to
    the test split, from its middle where enough is left above and below, else from its foot.
    """
    columns = width // CROP_SIZE
    if columns < 3 or height < 2 * CROP_SIZE:
        return []
    category = name.removesuffix("_left").removesuffix("_deep_field")
    boxes = []

    def add(split: str, left: int, top: int) -> None:
        path = f"{split}/{category}/{name}_x{left:03d}_y{top:03d}.png"
        right, bottom = left + CROP_SIZE, top + CROP_SIZE
        boxes.append(Box(name, split, category, path, left, top, right, bottom, width, height))

    for column in range(columns):
        left, right = column * width // columns, (column + 1) * width // columns
        if column % 2 == 0:
            areas = {"train": [(0, height)]}
        else:
            in_middle = height >= 3 * CROP_SIZE
            held_out = (height - CROP_SIZE) // (2 if in_middle else 1)
            add("test", (left + right - CROP_SIZE) // 2, held_out)
            areas = {"database": [(0, held_out), (held_out + CROP_SIZE, height)]}
        for split, spans in areas.items():
            for top, bottom in spans:
                for y in _positions(top, bottom, STRIDES[split]):
                    for x in _positions(left, right, STRIDES[split]):
                        add(split, x, y)
    return boxes


def lr_path(box: Box) -> str:
    """Return where the degraded form of a held-out crop lies."""
    return box.path.replace("test/", "lr/", 1)


def _positions(start: int, stop: int, stride: int) -> list[int]:
    """Spread crops evenly over start..stop, at most a stride apart; none where not even one fits."""
    free = stop - start - CROP_SIZE
    if free < 0:
        return []
    steps = math.ceil(free / stride)
    return [start + round(free * step / max(1, steps)) for step in range(steps + 1)]


def _shrink(photo: Tensor) -> Tensor:
    factor = LONGEST_SIDE / max(photo.shape[1:])
    if factor >= 1:
        return photo
    size = [round(side * factor) for side in photo.shape[1:]]
    return F.interpolate(photo[None], size=size, mode="bicubic", antialias=True)[0].clamp(0, 1)


def _files(boxes: list[Box]) -> set[str]:
    crops = {box.path for box in boxes} | {lr_path(box) for box in boxes if box.split == "test"}
    return crops | {"manifest.csv", "boxes.csv"}


def _read_record(output: Path) -> tuple[dict, list[Box]]:
    """Return the recipe and the crops of an earlier run; both empty if there was none."""
    try:
        record = json.loads((output / RECORD).read_text())
        boxes = [Box(**box) for box in record.pop("boxes")]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}, []
    return record, boxes


def _write_boxes(path: Path, boxes: list[Box]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Box))
        writer.writerows(astuple(box) for box in boxes)


def _summary(boxes: list[Box]) -> str:
    counts = Counter(box.split for box in boxes)
    categories = len({box.category for box in boxes})
    return (
        f"{categories} photographs, each a category; {counts['train']} training, {counts['database']} "
        f"database and {counts['test']} held-out crops of {CROP_SIZE}x{CROP_SIZE}"
    )


if __name__ == "__main__":
    main()
