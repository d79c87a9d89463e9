"""The list of a data set's images: a CSV manifest, or a plain folder.

Columns of a manifest, with a header line: `image`, `split`, `category`, `prompt`, `references`. Only
`image` must be there. Paths are relative to the manifest's folder; several references are separated by `;`.
Writing and reading need nothing but the standard library; no image is opened here.
"""

import csv
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rasr.errors import RasrError
from rasr.image_io import atomic_path, list_images, read_sidecar

COLUMNS = ("image", "split", "category", "prompt", "references")
SEPARATOR = ";"


@dataclass(frozen=True)
class Row:
    """One image of a data set."""

    image: str
    """As written in the manifest; it also is the sample's id, hence the same on every machine."""
    split: str = ""
    category: str = ""
    prompt: str = ""
    references: tuple[str, ...] = ()
    number: int = 0
    """Line in the manifest, for messages; 0 if the row was not read from one."""
    root: Path = Path()
    """What `image` and `references` are relative to."""

    @property
    def image_path(self) -> Path:
        return self.root / self.image

    @property
    def reference_paths(self) -> tuple[Path, ...]:
        return tuple(self.root / reference for reference in self.references)


def read_rows(source: str | Path, split: str | None = None) -> list[Row]:
    """Read the rows of a manifest, or list a folder.

    In a folder the category is the first-level subfolder, the prompt a `.txt` beside the image; it holds no
    references and no splits, so that all of it is returned as the split asked for. So is a manifest without
    any split.

    Args:
        source: a `.csv` file or a folder.
        split: keep only the rows of this split; None keeps all.
    """
    source = Path(source)
    if source.is_dir():
        return [_row_of_file(path, source, split or "") for path in list_images(source)]
    rows = read_manifest(source)
    if split is None or not any(row.split for row in rows):
        return rows
    kept = [row for row in rows if row.split == split]
    if not kept:
        known = ", ".join(sorted({row.split for row in rows}))
        raise RasrError(f"{source}: no row of split {split!r}; its splits are: {known}")
    return kept


def read_manifest(path: str | Path) -> list[Row]:
    """Read every row of a CSV manifest."""
    path = Path(path)
    if not path.is_file():
        raise RasrError(f"{path}: no such manifest or folder; check the path, or run the set's prepare.py")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_header(path, reader.fieldnames or [])
            rows = [_parse(path, reader.line_num, record) for record in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise RasrError(f"{path}: not a CSV file in UTF-8 ({error}); export it again") from error
    if not rows:
        raise RasrError(f"{path}: the manifest has no rows; list at least one image")
    return rows


def write_manifest(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows to a CSV manifest; it appears only when it is complete."""
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            references = SEPARATOR.join(row.references)
            writer.writerow((row.image, row.split, row.category, row.prompt, references))


def _check_header(path: Path, header: Iterable[str]) -> None:
    unknown = sorted(set(header) - set(COLUMNS))
    if "image" not in header:
        raise RasrError(f"{path}: no column 'image'; name the columns in the first line: {','.join(COLUMNS)}")
    if unknown:
        raise RasrError(f"{path}: unknown column {unknown[0]!r}; the columns are {','.join(COLUMNS)}")


def _parse(path: Path, number: int, record: dict[str | None, str | None]) -> Row:
    if None in record:
        raise RasrError(f"{path}, line {number}: more fields than columns; quote fields that hold a comma")
    image = (record["image"] or "").strip()
    if not image:
        raise RasrError(f"{path}, line {number}: the image is missing; fill the column or delete the line")
    references = (record.get("references") or "").split(SEPARATOR)
    return Row(
        image=image,
        split=(record.get("split") or "").strip(),
        category=(record.get("category") or "").strip(),
        prompt=(record.get("prompt") or "").strip(),
        references=tuple(reference.strip() for reference in references if reference.strip()),
        number=number,
        root=path.parent,
    )


def _row_of_file(path: Path, folder: Path, split: str) -> Row:
    relative = path.relative_to(folder)
    return Row(
        image=relative.as_posix(),
        split=split,
        category=relative.parts[0] if len(relative.parts) > 1 else "",
        prompt=read_sidecar(path),
        root=folder,
    )
