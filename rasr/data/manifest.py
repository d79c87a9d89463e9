"""The list of a data set's images: a CSV or Parquet manifest, or a plain folder.

Columns of a manifest: `image`, `split`, `category`, `prompt`, `references`, `lq`. Every row has an `image`
(the ground truth) or, where there is none, an `lq` (a photo to restore). Paths are relative to the
manifest's folder. In CSV, with a header line, several references are separated by `;`; in Parquet they are a
list of texts. Writing and reading CSV needs the standard library alone; no image is opened here.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rasr.errors import RasrError
from rasr.image_io import atomic_path, list_images, read_sidecar

COLUMNS = ("image", "split", "category", "prompt", "references", "lq")
SEPARATOR = ";"


@dataclass(frozen=True)
class Row:
    """One image of a data set."""

    image: str
    """The ground truth, as written in the manifest; "" in a set that has none."""
    split: str = ""
    category: str = ""
    prompt: str = ""
    references: tuple[str, ...] = ()
    lq: str = ""
    """A given low-quality image, for infer.py; training and validation degrade `image` themselves."""
    place: str = ""
    """Where it was read, for messages ("line 7", "row 3"); "" if it was not read from a manifest."""
    root: Path = Path()
    """What `image`, `references` and `lq` are relative to."""

    @property
    def id(self) -> str:
        """Name of the sample, the same on every machine."""
        return self.image or self.lq

    @property
    def image_path(self) -> Path:
        return self.root / self.image

    @property
    def lq_path(self) -> Path:
        return self.root / self.lq

    @property
    def reference_paths(self) -> tuple[Path, ...]:
        return tuple(self.root / reference for reference in self.references)

    def describe(self, path: Path, kind: str = "") -> str:
        """Say which file of the row a message is about: "line 7, reference photos/a.png"."""
        return ", ".join(part for part in (self.place, f"{kind} {path}".strip()) if part)


def read_rows(source: str | Path, split: str | None = None) -> list[Row]:
    """Read the rows of a manifest, or list a folder.

    In a folder the category is the first-level subfolder, the prompt a `.txt` beside the image; it holds no
    references and no splits, so that all of it is returned as the split asked for. So is a manifest without
    any split.

    Args:
        source: a `.csv` or `.parquet` file or a folder.
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
    """Read every row of a CSV or Parquet manifest."""
    path = Path(path)
    if not path.is_file():
        raise RasrError(f"{path}: no such manifest or folder; check the path, or run the set's prepare.py")
    read = _read_parquet if path.suffix == ".parquet" else _read_csv
    rows = [_parse(path, place, record) for place, record in read(path)]
    if not rows:
        raise RasrError(f"{path}: the manifest has no rows; list at least one image")
    return rows


def write_manifest(path: str | Path, rows: Iterable[Row]) -> None:
    """Write rows to a manifest, Parquet if it is so called, else CSV; it appears only when it is complete."""
    path = Path(path)
    with atomic_path(path) as temporary:
        if path.suffix == ".parquet":
            _write_parquet(temporary, list(rows))
        else:
            _write_csv(temporary, rows)


def _write_csv(path: Path, rows: Iterable[Row]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for row in rows:
            if clash := next((text for text in row.references if SEPARATOR in text), None):
                raise RasrError(f"{clash}: {SEPARATOR!r} in its name separates references; rename the file")
            references = SEPARATOR.join(row.references)
            writer.writerow((row.image, row.split, row.category, row.prompt, references, row.lq))


def _write_parquet(path: Path, rows: list[Row]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = {name: [getattr(row, name) for row in rows] for name in COLUMNS if name != "references"}
    columns = {name: pa.array(values, pa.string()) for name, values in texts.items()}
    columns["references"] = pa.array([row.references for row in rows], pa.list_(pa.string()))
    pq.write_table(pa.table({name: columns[name] for name in COLUMNS}), path)


def _read_csv(path: Path) -> Iterator[tuple[str, dict]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            _check_header(path, reader.fieldnames or [])
            for record in reader:
                if None in record:
                    raise RasrError(
                        f"{path}, line {reader.line_num}: more fields than columns; "
                        "quote fields that hold a comma"
                    )
                references = (record.get("references") or "").split(SEPARATOR)
                yield f"line {reader.line_num}", {**record, "references": references}
    except (UnicodeDecodeError, csv.Error) as error:
        raise RasrError(f"{path}: not a CSV file in UTF-8 ({error}); export it again") from error


def _read_parquet(path: Path) -> Iterator[tuple[str, dict]]:
    table = read_parquet_table(path)
    _check_header(path, table.column_names)
    for number, record in enumerate(table.to_pylist(), start=1):
        yield f"row {number}", record


def read_parquet_table(path: Path):
    """Read a Parquet file as a pyarrow table; a damaged one is a RasrError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        raise RasrError(f"{path}: not a Parquet file ({reason}); export it again") from error


def _check_header(path: Path, header: Iterable[str]) -> None:
    names = ",".join(COLUMNS)
    unknown = sorted(set(header) - set(COLUMNS))
    if "image" not in header and "lq" not in header:
        raise RasrError(f"{path}: no column 'image' (nor 'lq'); name the columns of: {names}")
    if unknown:
        raise RasrError(f"{path}: unknown column {unknown[0]!r}; the columns are {names}")


def _parse(path: Path, place: str, record: dict) -> Row:
    texts = {name: (record.get(name) or "").strip() for name in COLUMNS if name != "references"}
    if not texts["image"] and not texts["lq"]:
        raise RasrError(f"{path}, {place}: the image is missing; fill the column or delete the row")
    references = tuple(text.strip() for text in record.get("references") or () if text.strip())
    return Row(**texts, references=references, place=place, root=path.parent)


def _row_of_file(path: Path, folder: Path, split: str) -> Row:
    relative = path.relative_to(folder)
    return Row(
        image=relative.as_posix(),
        split=split,
        category=relative.parts[0] if len(relative.parts) > 1 else "",
        prompt=read_sidecar(path),
        root=folder,
    )
