"""What the scripts `data/<set>/prepare.py` share: crops, manifest, report of problems.

No original is ever altered: whatever is written lies under the output folder; neither it nor the folder of
the originals may lie inside the other, and no target may be an original.
"""

import csv
import io
import logging
import os
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from rasr.data.manifest import Row, read_manifest, write_manifest
from rasr.errors import RasrError
from rasr.image_io import ImageReadError, atomic_path, list_images, read_pixels, to_tensor, write_png
from rasr.image_ops import resize_bicubic
from rasr.preparation.jobs import Job

logger = logging.getLogger(__name__)

SHOWN = 5
TEST_PHOTOS = 2
"""Photographs of a category that are kept for tests."""


class Problems:
    """What was missing or could not be used, by kind."""

    def __init__(self) -> None:
        self.cases: dict[str, list[str]] = defaultdict(list)
        self.counts: Counter[str] = Counter()

    def add(self, kind: str, what: object, count: int = 1) -> None:
        """Note a case; `count` is how many things it stands for."""
        self.cases[kind].append(str(what))
        self.counts[kind] += count

    def expect(self, things: str, found: int, expected: int) -> None:
        """Note how many of the things that should be there are missing, if any."""
        if found < expected:
            self.add(f"{things} are missing", f"{found:,} of {expected:,} are there", expected - found)

    def log(self) -> None:
        """Log the count and the first cases of every kind."""
        for kind, cases in self.cases.items():
            rest = f"; and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
            logger.warning("%s %s: %s%s", f"{self.counts[kind]:,}", kind, "; ".join(cases[:SHOWN]), rest)

    def write(self, path: Path) -> None:
        """Write every case to a CSV file, unless it says so already; no case leaves no file."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(("problem", "what"))
        writer.writerows((kind, case) for kind, cases in self.cases.items() for case in cases)
        if not self.cases:
            path.unlink(missing_ok=True)
        elif not path.is_file() or path.read_text(encoding="utf-8") != text.getvalue():
            with atomic_path(path) as temporary:
                temporary.write_text(text.getvalue(), encoding="utf-8")


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder; none if it is missing or empty."""
    return list_images(folder) if folder.is_dir() and any(folder.iterdir()) else []


def split_categories(folder: Path) -> dict[str, tuple[list[Path], list[Path]]]:
    """Split a folder of category folders: of each, the last photographs by name are for tests.

    Returns:
        {category: (photographs to train on and to retrieve from, test photographs)}.
    """
    split = {}
    for category in sorted(path for path in folder.iterdir() if path.is_dir()):
        photos = images_in(category)
        if len(photos) <= TEST_PHOTOS:
            raise RasrError(
                f"{category}: {len(photos)} photographs; give at least {TEST_PHOTOS + 1}, or remove it"
            )
        split[category.name] = photos[:-TEST_PHOTOS], photos[-TEST_PHOTOS:]
    return split


def target_of(folder: Path, relative: Path | str) -> Path:
    """Return where an original's PNG lies; the old extension stays: a.jpg and a.png may both be there."""
    return folder / f"{relative}.png"


def crop_image(job: Job) -> dict:
    """Decode an original, write its crop if one is asked for, and return its size or its fault."""
    try:
        pixels = read_pixels(job.source)
    except ImageReadError as error:
        return {"fault": str(error).removeprefix(f"{job.source}: ")}
    height, width = pixels.shape[:2]
    if job.target is not None and min(width, height) >= job.min_side:
        shrunk = shrink(to_tensor(pixels), job.short_side)
        write_png(centre_crop(shrunk, job.crop), job.target)
    return {"width": width, "height": height}


def shrink(image: Tensor, short_side: int | None) -> Tensor:
    """Shrink (3, H, W) in [0, 1] to a short side of at most this (bicubic, antialiased); None does not."""
    height, width = image.shape[1:]
    if short_side is None or min(height, width) <= short_side:
        return image
    factor = short_side / min(height, width)
    return resize_bicubic(image[None], (round(height * factor), round(width * factor)))[0]


def centre_crop(image: Tensor, side: int | None) -> Tensor:
    """Cut (3, H, W) to sides of at most `side`; None gives it back."""
    if side is None:
        return image
    top, left = (max(0, length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def usable_images(jobs: Sequence[Job], results: Sequence[dict], problems: Problems) -> dict[Path, Path]:
    """Return {original: the file to list} for what can be used; note the others as problems.

    Args:
        jobs: what :func:`map_jobs` did with :func:`crop_image`.
        results: what it returned.
        problems: gets what cannot be used.
    """
    usable = {}
    for job, result in zip(jobs, results, strict=True):
        if "fault" in result:
            problems.add("unreadable", f"{job.source} ({result['fault']})")
        elif min(result["width"], result["height"]) < job.min_side:
            size = f"{result['width']}x{result['height']}"
            problems.add(f"smaller than {job.min_side} pixels", f"{job.source} ({size})")
        else:
            usable[job.source] = job.target or job.source
    return usable


def relative_to_manifest(path: Path, output: Path) -> str:
    """Return a path as the manifest in the output folder names it."""
    return Path(os.path.relpath(path, output)).as_posix()


def write_set(output: Path, rows: list[Row], problems: Problems, *, parquet: bool = False) -> Path:
    """Write the manifest and `problems.csv`, log counts and return the manifest's path.

    References that were assigned to an image since the last run stay as long as their files are there, and a
    manifest that would not change is not written again.
    """
    problems.log()
    problems.write(output / "problems.csv")
    if not rows:
        raise RasrError("nothing usable was found; compare the folder with the layout in data/README.md")
    path = output / ("manifest.parquet" if parquet else "manifest.csv")
    old = [replace(row, place="", root=Path()) for row in read_manifest(path)] if path.is_file() else []
    rows = _keep_references(rows, {row.id: row.references for row in old}, output)
    if rows != old:
        write_manifest(path, rows)
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row.split or "all"] += 1
    logger.info("%s: %s", path, ", ".join(f"{count} {split}" for split, count in counts.items()))
    return path


def _keep_references(rows: list[Row], assigned: dict[str, tuple[str, ...]], output: Path) -> list[Row]:
    """Give rows without references those of the old manifest whose files are still there."""
    kept, lost = [], 0
    for row in rows:
        old = row.references or assigned.get(row.id, ())
        present = tuple(path for path in old if (output / path).is_file())
        lost += present != old
        kept.append(replace(row, references=present))
    if lost:
        logger.warning("%d rows lost references; run index.py assign= again", lost)
    return kept
