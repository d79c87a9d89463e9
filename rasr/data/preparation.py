"""What the scripts `data/<set>/prepare.py` share: command line, cheap re-runs, crops, manifest, report.

No original is ever altered: whatever is written lies under the output folder, which must not lie inside the
originals. A record of every finished file (`prepared.json`) makes a second run, or one after an
interruption, do only what is missing.
"""

import argparse
import csv
import io
import json
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from rasr.data.manifest import Row, read_manifest, write_manifest
from rasr.errors import RasrError
from rasr.image_io import ImageReadError, atomic_path, list_images, read_pixels, to_tensor, write_png
from rasr.image_ops import resize_bicubic

logger = logging.getLogger(__name__)

RECORD = "prepared.json"
SAVE_EVERY = 500
SHOWN = 5


@dataclass(frozen=True)
class Job:
    """One original to look at, and what is to be made of it."""

    source: Path
    target: Path | None = None
    """PNG to write; None writes nothing."""
    crop: int | None = None
    """Sides of the target are at most this, in pixels, cut from the centre; None keeps them."""
    min_side: int = 1
    """Smaller originals cannot be used, in pixels."""
    short_side: int | None = None
    """Originals whose short side is longer are shrunk to this before they are cut, in pixels."""


class Problems:
    """What was missing or could not be used, by kind."""

    def __init__(self) -> None:
        self.cases: dict[str, list[str]] = defaultdict(list)

    def add(self, kind: str, what: object) -> None:
        self.cases[kind].append(str(what))

    def log(self) -> None:
        """Log the count and the first cases of every kind."""
        for kind, cases in self.cases.items():
            rest = f"; and {len(cases) - SHOWN} more" if len(cases) > SHOWN else ""
            logger.warning("%d %s: %s%s", len(cases), kind, "; ".join(cases[:SHOWN]), rest)

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


def run_script(
    parser: argparse.ArgumentParser, prepare: Callable[[argparse.Namespace], object], script: str
) -> None:
    """Add the arguments that all scripts have, check them and run; mistakes become one line.

    Args:
        parser: with the script's own arguments.
        prepare: the script's work.
        script: its `__file__`; the default output is the folder `images` beside it.
    """
    default = Path(script).resolve().parent / "images"
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--input", type=Path, required=True, help="folder of the originals")
    parser.add_argument("--output", type=Path, default=default, help="folder to write to")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count(), help="processes; 0 uses this one alone"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        args = parser.parse_args()
        if not args.input.is_dir():
            raise RasrError(f"{args.input}: no such folder; give the set's own as --input")
        if args.output.resolve().is_relative_to(args.input.resolve()):
            raise RasrError(f"--output {args.output} lies inside the originals; give another folder")
        prepare(args)
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; run the same command again to go on\n")


def images_in(folder: Path) -> list[Path]:
    """List the images of a folder; none if it is missing or empty."""
    return list_images(folder) if folder.is_dir() and any(folder.iterdir()) else []


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


def map_jobs(
    function: Callable[[Job], dict],
    jobs: Sequence[Job],
    record: Path,
    *,
    workers: int,
    description: str,
) -> list[dict]:
    """Run a function over originals and return its results, in order.

    Results are kept in `record`, and used again while the original (size and time of change), the job and
    its target are the same.

    Args:
        function: importable by name; returns what JSON can hold.
        jobs: what to do.
        record: JSON file; it may serve several calls with different functions.
        workers: processes; 0 uses this one alone.
        description: of the progress bar.
    """
    known = _read_record(record)
    keys = [_key(function, job) for job in jobs]
    stamps = [_stamp(job.source) for job in jobs]
    todo = [
        index
        for index, (job, key, stamp) in enumerate(zip(jobs, keys, stamps, strict=True))
        if key not in known or known[key]["stamp"] != stamp or not _is_made(job, known[key]["result"])
    ]
    try:
        with ExitStack() as stack:
            mapper = map
            if workers > 1 and len(todo) > 1:
                pool = stack.enter_context(
                    ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,))
                )
                stack.callback(pool.shutdown, wait=True, cancel_futures=True)
                mapper = pool.map
            results = mapper(function, [jobs[index] for index in todo])
            progress = tqdm(results, total=len(todo), desc=description, unit="image", disable=not todo)
            for done, (index, result) in enumerate(zip(todo, progress, strict=True), start=1):
                known[keys[index]] = {"stamp": stamps[index], "result": result}
                if done % SAVE_EVERY == 0:
                    _write_record(record, known)
    finally:
        if todo:
            _write_record(record, known)
    return [known[key]["result"] for key in keys]


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


def remove_stale(output: Path, folders: Sequence[str], kept: set[Path]) -> int:
    """Remove the PNGs in these folders of the output that an earlier run wrote and this one did not."""
    stale = [path for name in folders for path in (output / name).rglob("*.png") if path not in kept]
    for path in stale:
        path.unlink()
    return len(stale)


def relative_to_manifest(path: Path, output: Path) -> str:
    """Return a path as the manifest in the output folder names it."""
    return Path(os.path.relpath(path, output)).as_posix()


def write_set(output: Path, rows: list[Row], problems: Problems, *, parquet: bool = False) -> Path:
    """Write the manifest and `problems.csv`, log counts and return the manifest's path.

    References that were assigned to an image since the last run stay, and a manifest that would not change
    is not written again.
    """
    problems.log()
    problems.write(output / "problems.csv")
    if not rows:
        raise RasrError("nothing usable was found; compare the folder with the layout in data/README.md")
    path = output / ("manifest.parquet" if parquet else "manifest.csv")
    old = [replace(row, place="", root=Path()) for row in read_manifest(path)] if path.is_file() else []
    assigned = {row.id: row.references for row in old}
    rows = [row if row.references else replace(row, references=assigned.get(row.id, ())) for row in rows]
    if rows != old:
        write_manifest(path, rows)
    counts: dict[str, int] = defaultdict(int)
    for row in rows:
        counts[row.split or "all"] += 1
    logger.info("%s: %s", path, ", ".join(f"{count} {split}" for split, count in counts.items()))
    return path


def _key(function: Callable, job: Job) -> str:
    parts = {name: str(value) for name, value in asdict(job).items()}
    return json.dumps([function.__name__, *parts.values()])


def _stamp(path: Path) -> list[int]:
    """Return what changes with a file; empty if it is missing."""
    try:
        stat = path.stat()
    except OSError:
        return []
    return [stat.st_size, stat.st_mtime_ns]


def _is_made(job: Job, result: dict) -> bool:
    """Whether the job's target is there, or was never to be made."""
    if job.target is None or "fault" in result or min(result["width"], result["height"]) < job.min_side:
        return True
    return job.target.is_file()


def _read_record(path: Path) -> dict[str, dict]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _write_record(path: Path, known: dict[str, dict]) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(known), encoding="utf-8")
