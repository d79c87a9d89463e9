"""The photographs that a command restores, and where each result goes."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rasr.errors import RasrError
from rasr.image_io import list_images
from rasr.inference.results import output_paths

MANIFESTS = (".csv", ".parquet")


@dataclass(frozen=True)
class Photograph:
    """One image to restore."""

    path: Path
    target: Path
    """PNG to write."""
    prompt: str = ""
    """What the manifest says of it."""
    references: tuple[Path, ...] = ()
    """Those that the manifest gives it, best first."""


def list_photographs(source: Path, output: Path, split: str | None = None) -> list[Photograph]:
    """List what is to be restored.

    Results are named by the photographs' paths below the folder; of a manifest, below the folder that all
    its photographs have in common.

    Args:
        source: an image, a folder of images, or a manifest (CSV or Parquet, :mod:`rasr.data.manifest`): of
            each row `lq`, or `image` where it has no `lq`.
        output: folder of the results.
        split: rows of the manifest to take; None takes all.

    Raises:
        RasrError: nothing there, or a result would be among the photographs.
    """
    if source.is_file() and source.suffix.lower() in MANIFESTS:
        return _of_manifest(source, output, split)
    paths = list_images(source)
    root = source if source.is_dir() else source.parent
    if source.is_dir() and output.resolve().is_relative_to(root.resolve()):
        raise RasrError(f"output={output} lies inside input={source}, its PNGs would be restored next time")
    targets = output_paths(paths, root, output)
    _refuse_originals(targets, paths)
    return [Photograph(path, target) for path, target in zip(paths, targets, strict=True)]


def _of_manifest(source: Path, output: Path, split: str | None) -> list[Photograph]:
    from rasr.data.manifest import read_rows  # loads what a plain folder does without

    rows = read_rows(source, split)
    paths = [row.lq_path if row.lq else row.image_path for row in rows]
    places = [Path(os.path.abspath(path)) for path in paths]  # without the ".." of rows outside the set
    seen: set[Path] = set()
    for row, place in zip(rows, places, strict=True):
        if place in seen:
            raise RasrError(f"{source}, {row.place}: {place} is listed twice; delete one row")
        seen.add(place)
    targets = output_paths(places, Path(os.path.commonpath([place.parent for place in places])), output)
    _refuse_originals(targets, [*paths, *(path for row in rows for path in row.reference_paths)])
    return [
        Photograph(path, target, row.prompt, row.reference_paths)
        for path, target, row in zip(paths, targets, rows, strict=True)
    ]


def _refuse_originals(targets: list[Path], originals: list[Path]) -> None:
    known = {os.path.realpath(path) for path in originals}
    if clash := next((target for target in targets if os.path.realpath(target) in known), None):
        raise RasrError(f"{clash} would be written over an original; give another output=")
