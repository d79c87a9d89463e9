"""References from a neighbours file, in place of a manifest's column `references`.

The file is Parquet with the columns `image`, `rank`, `reference`, `score`: one line for each of the best
references of each image. Paths are relative to the file's folder. Training reads it instead of asking a
live index, which most engines open for one process only.
"""

import os
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from rasr.data.manifest import Row, read_parquet_table
from rasr.errors import RasrError

COLUMNS = ("image", "rank", "reference", "score")


def attach_neighbours(rows: list[Row], path: str | Path) -> list[Row]:
    """Give every row the references that the file has for its image, best (lowest rank) first.

    Raises:
        RasrError: no such file, other columns, or an image that the file does not know.
    """
    path = Path(path)
    known = _read(path)
    missing = [row for row in rows if _absolute(row.image_path) not in known]
    if missing:
        raise RasrError(
            f"{path}: knows no reference for {len(missing)} of {len(rows)} images, the first is "
            f"{missing[0].image_path}; write the neighbours of this data set again"
        )
    return [replace(row, references=_relative(known[_absolute(row.image_path)], row.root)) for row in rows]


def _read(path: Path) -> dict[str, list[str]]:
    """Return {image: its references, best first}, all as absolute paths."""
    if not path.is_file():
        raise RasrError(f"{path}: no such neighbours file; check data.neighbours, or write it with index.py")
    table = read_parquet_table(path)
    absent = [name for name in COLUMNS if name not in table.column_names]
    if absent:
        raise RasrError(f"{path}: no column {absent[0]!r}; a neighbours file has {','.join(COLUMNS)}")
    ranked: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for image, rank, reference in zip(*(table[name].to_pylist() for name in COLUMNS[:3]), strict=True):
        ranked[_absolute(path.parent / image)].append((rank, _absolute(path.parent / reference)))
    return {image: [reference for _, reference in sorted(found)] for image, found in ranked.items()}


def _absolute(path: Path) -> str:
    return os.path.abspath(path)


def _relative(references: list[str], root: Path) -> tuple[str, ...]:
    return tuple(Path(os.path.relpath(reference, root)).as_posix() for reference in references)
