"""The files of a `flat` index: names, the atomic meta file, appending, the writer's lock."""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rasr.errors import RasrError
from rasr.image_io import atomic_path

FORMAT = 1


@dataclass(frozen=True)
class Payload:
    """What the index knows of an image.

    Attributes:
        path: the file; absolute outside the index, relative to the index on disk (both can move together).
        category: "" if it has none.
        prompt: "" if it has none.
        size: width, height in pixels.
        content_hash: of the file's bytes, see `rasr.image_io.content_hash`.
    """

    path: str
    category: str = ""
    prompt: str = ""
    size: tuple[int, int] = (0, 0)
    content_hash: str = ""


def data_files(path: Path, generation: int) -> tuple[Path, Path]:
    return path / f"vectors-{generation}.f32", path / f"entries-{generation}.jsonl"


def is_leftover(name: str) -> bool:
    """Tell whether an interrupted `create` may have left this file."""
    return name in {"vectors-0.f32", "entries-0.jsonl", "lock"} or name.endswith(".part")


def read_meta(path: Path) -> dict[str, Any]:
    file = path / "meta.json"
    if not file.is_file():
        raise RasrError(f"{path}: no index here; build one with: python index.py database=DIR index={path}")
    try:
        meta = json.loads(file.read_text())
        if (meta["format"], meta["engine"]) != (FORMAT, "flat"):
            raise RasrError(f"{path}: an index of another kind or of a newer rasr; update rasr")
        _ = meta["dim"], meta["generation"], meta["count"], meta["entries_bytes"]
        _ = meta["encoder"]["name"], meta["encoder"]["version"], meta["encoder"]["settings"]
    except RasrError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise RasrError(f"{file}: damaged; delete the folder {path} and build the index again") from error
    return meta


def read_entries(path: Path, size: int) -> tuple[list[str], list[Payload]]:
    """Read the ids and payloads in the first `size` bytes."""
    with path.open("rb") as file:
        records = [json.loads(line) for line in file.read(size).splitlines()]
    ids = [record.pop("id") for record in records]
    return ids, [Payload(**{**record, "size": tuple(record["size"])}) for record in records]


def format_entries(entries: Iterable[tuple[str, Payload]]) -> bytes:
    lines = (json.dumps({"id": entry_id, **asdict(payload)}) for entry_id, payload in entries)
    return "".join(f"{line}\n" for line in lines).encode()


def write_meta(path: Path, meta: dict[str, Any]) -> None:
    with atomic_path(path / "meta.json") as temporary, temporary.open("wb") as file:
        file.write(json.dumps(meta, indent=1).encode())
        flush(file)


def append(path: Path, offset: int, data: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.truncate()
        file.write(data)
        flush(file)


def flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def lock(path: Path) -> BinaryIO:
    """Become the one process that writes; closing the returned file ends it."""
    import fcntl  # not on Windows, where an index can be read all the same

    lock_file = (path / "lock").open("wb")
    try:
        fcntl.flock(lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock_file.close()
        raise RasrError(f"{path}: another process is writing this index; wait for it to end") from error
    return lock_file


def remove_old_data(path: Path, generation: int) -> None:
    """Remove the data of all generations but this one, those of interrupted runs too."""
    current = data_files(path, generation)
    for pattern in ("vectors-*.f32", "entries-*.jsonl"):
        for file in path.glob(pattern):
            if file not in current:
                file.unlink(missing_ok=True)
