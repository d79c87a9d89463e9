"""Make the demo's pairs: photographs to restore, and for each another view of the same scene in a database.

Real pairs are two photographs: the halves of a stereo pair (scikit-image's motorcycle) and frames of a clip
between which the camera moved (frames/). Made views are drawn by rasr.data.two_view out of one photograph of
scikit-image or scikit-learn: turned, of another scale, sheared and differently exposed, each by no less than
the least values below, so that no pixel of the reference lies on a pixel of the photograph.

Photographs to restore are 128x128, the truth 512x512. Where the source is too small for that, the largest
crop is taken, as wide as high: 424x424 (china, flower) and 400x400 (coffee); the stereo picture,
741x500, gives two crops of 368x496 side by side. Some are degraded by the preset mild, some by
realesrgan.

Written under the output folder, the same bytes on every run:

    lr/<name>.png            to restore
    test/<name>.png          its truth, four times as large
    database/<scene>/*       the other views, and photographs of no tested scene
    right/<name>.*           the other view of each photograph, for infer.py reference=FOLDER
    wrong/<name>.*           the other view of another scene instead
    pairs.csv                what each photograph is, and how far its view differs
    prepared.json            what made all this; it makes a second run return at once
"""

import argparse
import csv
import json
import logging
import math
import shutil
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path

import torch
import torch.nn.functional as F
from photographs import find_photograph
from torch import Tensor
from tqdm import tqdm

from rasr.data.two_view import STRIDE, ViewRange, make_view
from rasr.degradation import RealESRGANDegradation
from rasr.errors import RasrError
from rasr.image_io import atomic_path, content_hash, read_image, write_png
from rasr.seeding import SampleRandom, sample_seed

log = logging.getLogger("prepare")

SEED = 20
RECORD = "prepared.json"
SKIMAGE, SKLEARN, FRAMES = "skimage/data", "sklearn/datasets/images", "frames"


@dataclass(frozen=True)
class Item:
    """A photograph to restore: the crop `box` (left, top, width, height) of a source."""

    name: str
    scene: str
    degradation: str
    source: tuple[str, str]
    box: tuple[int, int, int, int]
    other: tuple[str, str] | None = None
    """The other photograph of a real pair; None lets a view be made."""
    attempt: int = 0
    """Number of the first made view that differs enough; to look for it takes some seconds each time."""


STEREO = (SKIMAGE, "motorcycle_left.png"), (SKIMAGE, "motorcycle_right.png")
ITEMS = (
    Item("motorcycle_rear", "motorcycle", "mild", STEREO[0], (0, 0, 368, 496), STEREO[1]),
    Item("motorcycle_front", "motorcycle", "realesrgan", STEREO[0], (373, 0, 368, 496), STEREO[1]),
    Item(
        *("bedroom_dresser", "bedroom", "realesrgan", (FRAMES, "bedroom_00000.jpg"), (448, 28, 512, 512)),
        (FRAMES, "bedroom_00100.jpg"),
    ),
    Item(
        *("bedroom_children", "bedroom", "mild", (FRAMES, "bedroom_00120.jpg"), (0, 28, 512, 512)),
        (FRAMES, "bedroom_00060.jpg"),
    ),
    Item("astronaut", "astronaut", "mild", (SKIMAGE, "astronaut.png"), (0, 0, 512, 512), attempt=195),
    Item("camera", "camera", "realesrgan", (SKIMAGE, "camera.png"), (0, 0, 512, 512), attempt=260),
    Item("china", "china", "realesrgan", (SKLEARN, "china.jpg"), (0, 3, 424, 424), attempt=23),
    Item("coffee", "coffee", "mild", (SKIMAGE, "coffee.png"), (90, 0, 400, 400), attempt=25),
    Item("flower", "flower", "mild", (SKLEARN, "flower.jpg"), (120, 3, 424, 424), attempt=63),
)
DISTRACTORS = tuple(
    (SKIMAGE, name)
    for name in (
        *("brick.png", "chelsea.png", "coins.png", "hubble_deep_field.jpg", "moon.png", "page.png"),
        "rocket.jpg",
    )
)

VIEWS = ViewRange(turn=8, zoom=1.3, tilt=0.05, shift=0.05, far=0, other=0, occluder=0)
LEAST_TURN = 3.0  # degrees
LEAST_ZOOM = 1.08  # factor of size, or its inverse
LEAST_EXPOSURE = 1.05  # factor of mean brightness, or its inverse
LEAST_SHOWN = 0.7  # share of the photograph that its view shows
MOST_OUTSIDE = (
    0.02  # of its side may a corner of the view lie beyond its source, where the source is mirrored
)
ATTEMPTS = 300


@dataclass(frozen=True)
class Pair:
    """A line of pairs.csv."""

    name: str
    scene: str
    kind: str
    """real or made"""
    degradation: str
    reference: str
    """The other view, relative to database/."""
    wrong: str
    """The wrong reference, likewise."""
    source: str
    left: int
    top: int
    width: int
    height: int
    turn: float | None = None
    """Degrees by which a made view is turned; this and the rest are None for real pairs."""
    zoom: float | None = None
    exposure: float | None = None
    shown: float | None = None


@dataclass(frozen=True)
class Difference:
    """How a view differs from its photograph, as measured on the pixels and their correspondences."""

    turn: float
    """Degrees."""
    zoom: float
    """Size in the view over size in the photograph."""
    exposure: float
    """Mean brightness of what both show, view over photograph."""
    shown: float
    """Share of the photograph that the view shows."""
    outside: float
    """How far the view's corners lie beyond its source, as a share of the side."""

    @property
    def is_enough(self) -> bool:
        """Whether the view differs, and shows enough all the same."""
        return (
            abs(self.turn) >= LEAST_TURN
            and abs(math.log(self.zoom)) >= math.log(LEAST_ZOOM)
            and abs(math.log(self.exposure)) >= math.log(LEAST_EXPOSURE)
            and self.shown >= LEAST_SHOWN
            and self.outside <= MOST_OUTSIDE
        )


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("outputs/demo/pairs"), help="folder to write to")
    try:
        prepare(parser.parse_args().output)
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")


def prepare(output: Path) -> list[Pair]:
    """Write the pairs, unless they are there already; return the lines of pairs.csv."""
    items, distractors = available()
    sources = {path for item in items for path in (item.source, item.other) if path} | set(distractors)
    recipe = {
        "code": content_hash(__file__),
        "photographs": {
            name: content_hash(find_photograph(*key)) for key in sorted(sources) for name in key[1:]
        },
    }
    old = _read_record(output)
    old_files = old.pop("files", {})
    old_pairs = old.pop("pairs", [])
    if old == recipe and all(_holds(output / name, content) for name, content in old_files.items()):
        pairs = [Pair(**pair) for pair in old_pairs]
        log.info("%s is complete: %s", output, summary(pairs, distractors))
        return pairs

    files, references, pairs = {"pairs.csv"}, {}, []
    differences: dict[str, Difference] = {}
    for item in tqdm(items, desc="pairs", unit="pair"):
        photo = read_image(find_photograph(*item.source))
        left, top, width, height = item.box
        truth = photo[:, top : top + height, left : left + width]
        seeds = torch.tensor([sample_seed(SEED, item.name)])
        write_png(truth, output / "test" / f"{item.name}.png")
        degradation = RealESRGANDegradation(item.degradation, scale=4)
        write_png(degradation(truth[None], seeds=seeds)[0], output / "lr" / f"{item.name}.png")
        if item.other is None:
            view, differences[item.name] = draw_view(photo, item)
            references[item.name] = f"{item.scene}/{item.name}.png"
            write_png(view, output / "database" / references[item.name])
        else:
            references[item.name] = f"{item.scene}/{item.other[1]}"
            _copy(find_photograph(*item.other), output / "database" / references[item.name])
        files |= {f"test/{item.name}.png", f"lr/{item.name}.png", f"database/{references[item.name]}"}
    for key in distractors:
        name = f"database/{Path(key[1]).stem}/{key[1]}"
        _copy(find_photograph(*key), output / name)
        files.add(name)

    wrong = wrong_references(items, references)
    for kind, chosen in {"right": references, "wrong": wrong}.items():
        for name, reference in chosen.items():
            target = f"{kind}/{name}{Path(reference).suffix}"
            _copy(output / "database" / reference, output / target)
            files.add(target)
    for item in items:
        difference = differences.get(item.name)
        measured = (
            (difference.turn, difference.zoom, difference.exposure, difference.shown) if difference else ()
        )
        pairs.append(
            Pair(
                *(item.name, item.scene, "made" if item.other is None else "real", item.degradation),
                *(references[item.name], wrong[item.name], item.source[1], *item.box),
                *(round(number, 3) for number in measured),
            )
        )
    _write_pairs(output / "pairs.csv", pairs)
    for name in old_files.keys() - files:  # else the index would still find them
        (output / name).unlink(missing_ok=True)
    record = {"pairs": [asdict(pair) for pair in pairs]}
    record["files"] = {name: content_hash(output / name) for name in sorted(files)}
    with atomic_path(output / RECORD) as temporary:
        temporary.write_text(json.dumps(recipe | record, indent=1))
    log.info("%s is ready: %s", output, summary(pairs, distractors))
    return pairs


def available() -> tuple[list[Item], list[tuple[str, str]]]:
    """Return the items and distractors whose photographs are installed."""
    items = [item for item in ITEMS if all(find_photograph(*key) for key in (item.source, item.other) if key)]
    distractors = [key for key in DISTRACTORS if find_photograph(*key)]
    left_out = {item.name for item in ITEMS} - {item.name for item in items}
    if left_out:
        log.warning("not in these versions of the packages, left out: %s", ", ".join(sorted(left_out)))
    if len({item.scene for item in items}) < 2:
        raise RasrError("the photographs were not found; install scikit-image and scikit-learn anew")
    return items, distractors


def draw_view(photo: Tensor, item: Item) -> tuple[Tensor, Difference]:
    """Make the first view that differs enough, from the item's attempt on.

    Args:
        photo: (3, H, W) in [0, 1].
        item: names the square crop that the view shows.

    Returns:
        The view (3, S, S) in [0, 1], S the side of the crop, and how it differs.
    """
    left, top, size, _ = item.box
    truth = photo[:, top : top + size, left : left + size]
    for attempt in range(item.attempt, item.attempt + ATTEMPTS):
        rng = SampleRandom(sample_seed(SEED, item.name, "view", attempt))
        view, places = make_view(photo, (top, left), size, VIEWS, rng)
        difference = measure_view(truth, view, places, photo.shape[-2:], (top, left))
        if difference.is_enough:
            return view, difference
    raise RasrError(f"{item.name}: none of {ATTEMPTS} views differs enough; widen VIEWS")


def measure_view(
    truth: Tensor, view: Tensor, places: Tensor, photo_size: tuple[int, int], corner: tuple[int, int]
) -> Difference:
    """Measure how a view differs from the crop that it shows.

    Args:
        truth: the crop, (3, S, S) in [0, 1].
        view: (3, S, S) in [0, 1].
        places: (2, S/4, S/4), of `rasr.data.two_view.make_view`.
        photo_size: (H, W) of the photograph.
        corner: (top, left) of the crop in it.
    """
    size = truth.shape[-1]
    is_shown = (places >= 0).all(0)
    centres = (torch.arange(size // STRIDE) + 0.5) * STRIDE
    y, x = torch.meshgrid(centres, centres, indexing="ij")
    here = torch.stack([x, y, torch.ones_like(x)], -1)[is_shown]
    # The best affine map from the crop to the view: what the eye sees of turn and scale.
    fit = torch.linalg.lstsq(here, places[:, is_shown].T).solution
    matrix, offset = fit[:2].T, fit[2]
    corners = torch.tensor([[0.0, 0.0], [size, 0], [0, size], [size, size]])
    in_photo = (corners - offset) @ torch.linalg.inv(matrix).T + torch.tensor([corner[1], corner[0]])
    sides = torch.tensor([photo_size[1], photo_size[0]])
    patches = F.avg_pool2d(truth[None], STRIDE)[0][:, is_shown]
    grid = places[:, is_shown].T.reshape(1, 1, -1, 2) / size * 2 - 1
    seen = F.grid_sample(view[None], grid, mode="bilinear", padding_mode="border", align_corners=False)
    return Difference(
        turn=math.degrees(math.atan2(matrix[1, 0] - matrix[0, 1], matrix[0, 0] + matrix[1, 1])),
        zoom=math.sqrt(torch.linalg.det(matrix).abs().item()),
        exposure=(seen.mean() / patches.mean()).item(),
        shown=is_shown.float().mean().item(),
        outside=torch.cat([-in_photo, in_photo - sides]).max().clamp(min=0).item() / size,
    )


def wrong_references(items: list[Item], references: dict[str, str]) -> dict[str, str]:
    """Return for each item the reference of the item half the list further, or the next of another scene."""
    wrong = {}
    for index, item in enumerate(items):
        others = items[index:] + items[:index]
        others = others[len(items) // 2 :] + others[: len(items) // 2]
        wrong[item.name] = next(references[other.name] for other in others if other.scene != item.scene)
    return wrong


def summary(pairs: list[Pair], distractors: list[tuple[str, str]]) -> str:
    """Return the counts in words."""
    real = sum(pair.kind == "real" for pair in pairs)
    views = len({pair.reference for pair in pairs})
    return (
        f"{len(pairs)} photographs to restore, {real} of real pairs and {len(pairs) - real} with made views; "
        f"{views} other views and {len(distractors)} further photographs in the database"
    )


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _holds(path: Path, content: str) -> bool:
    return path.is_file() and content_hash(path) == content


def _read_record(output: Path) -> dict:
    """Return what an earlier run noted; empty if there was none."""
    try:
        record = json.loads((output / RECORD).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _write_pairs(path: Path, pairs: list[Pair]) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Pair))
        writer.writerows(astuple(pair) for pair in pairs)


if __name__ == "__main__":
    main()
