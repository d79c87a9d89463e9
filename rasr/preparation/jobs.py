"""Work on many originals that can be interrupted: each is done once, and a record says what was made.

The record (`prepared.json`) lies in the output folder. Results in it are used again while nothing has
changed, and only files that it names are ever removed.
"""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from rasr.errors import RasrError
from rasr.image_io import atomic_path

RECORD = "prepared.json"
SAVE_EVERY = 500


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

    Raises:
        RasrError: a target is one of the originals; nothing was done.
    """
    _refuse_originals(jobs)
    known = _read_record(record)
    keys = [_key(function, job) for job in jobs]
    stamps = [_stamp(job.source) for job in jobs]
    todo = [
        index
        for index, (job, key, stamp) in enumerate(zip(jobs, keys, stamps, strict=True))
        if key not in known or known[key]["stamp"] != stamp or not _is_made(job, known[key]["result"])
    ]
    if todo:  # noted before they are made: so a later run knows as its own what a killed one left
        known |= {keys[index]: {"stamp": None, "result": None} for index in todo}
        _write_record(record, known)
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


def remove_stale(output: Path, kept: Iterable[Path]) -> int:
    """Remove what an earlier run wrote, by the record in the output folder, and this one does not keep.

    Files that no run wrote stay, whatever their names.
    """
    entries = [json.loads(key) for key in _read_record(output / RECORD)]
    written = {_place(Path(target)) for _, _, target, *_ in entries if target != str(None)}
    originals = {os.path.realpath(source) for _, source, *_ in entries} if written else set()
    stale = [
        path
        for path in written - set(map(_place, kept))
        if path.is_relative_to(output.resolve())
        and path.is_file()
        and os.path.realpath(path) not in originals
    ]
    for path in stale:
        path.unlink()
    return len(stale)


def _refuse_originals(jobs: Sequence[Job]) -> None:
    targets = [job.target for job in jobs if job.target is not None]
    originals = {os.path.realpath(job.source) for job in jobs} if targets else set()
    if clash := next((target for target in targets if os.path.realpath(target) in originals), None):
        raise RasrError(f"{clash} would be written over an original; give another --output")


def _place(path: Path) -> Path:
    """Return where a file itself lies, also if it is a link to another."""
    return Path(os.path.realpath(path.parent)) / path.name


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
