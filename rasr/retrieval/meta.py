"""The description of an index (`meta.json`): format, engine, encoder, state, fingerprints of its files.

An index is in one of two states. `writing` from the first change on, `complete` once the writer has closed
it: what a killed writer left is therefore known at the next open. A complete index on disk names its files
with their sizes and checksums, so that a file that was cut short, emptied or lost is found at open. (The edge
engine alone opens an index whose vectors are gone, and finds nothing: seen with qdrant-edge-py 0.9.0.)
"""

import json
import os
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from rasr.errors import RasrError
from rasr.image_io import atomic_path

FORMAT = 2
META_FILE = "meta.json"

_BLOCK = 4096
_SAMPLES = 64


@dataclass(frozen=True)
class IndexMeta:
    """What is known of an index without its entries.

    Attributes:
        engine: name of a registered engine.
        dim: length of the vectors.
        encoder: name, version and settings of the encoder that made them.
        patches: size and overlap of the crops, or None if entries are whole images.
        quantize: whether the engine searches int8 copies of the vectors.
        state: "writing" or "complete".
        count: entries; of the last complete state, for `flat` of the last write.
        storage: what the engine itself wants to know.
        files: per file below the index its size, the checksum of samples and the checksum of the whole.
    """

    engine: str
    dim: int
    encoder: Mapping[str, Any]
    patches: Mapping[str, int] | None = None
    quantize: bool = False
    state: str = "writing"
    count: int = 0
    storage: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, list[int]] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], location: str) -> "IndexMeta":
        """Check what was read from `location`."""
        try:
            values = dict(values)
            found = values.pop("format")
            if found != FORMAT:
                mend = "update rasr" if found > FORMAT else "delete it and build it again with index.py"
                raise RasrError(f"{location}: an index of format {found}, this rasr reads {FORMAT}; {mend}")
            meta = cls(**values)
        except RasrError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise damaged(location, "its description cannot be read") from error
        if wrong := meta._wrong_keys():
            raise damaged(location, f"its description has a wrong {wrong[0]}")
        return meta

    def _wrong_keys(self) -> list[str]:
        """The keys whose values cannot be meant."""
        encoder = self.encoder if isinstance(self.encoder, Mapping) else {}
        texts = (encoder.get("name"), encoder.get("version"))
        is_right = {
            "engine": isinstance(self.engine, str),
            "dim": type(self.dim) is int and self.dim > 0,
            "encoder": all(isinstance(text, str) for text in texts)
            and isinstance(encoder.get("settings"), Mapping),
            "patches": self.patches is None
            or (isinstance(self.patches, Mapping) and self.patches.keys() == {"size", "overlap"}),
            "quantize": isinstance(self.quantize, bool),
            "state": self.state in ("writing", "complete"),
            "count": type(self.count) is int and self.count >= 0,
            "storage": isinstance(self.storage, Mapping),
            "files": isinstance(self.files, Mapping),
        }
        return [key for key, right in is_right.items() if not right]


def damaged(location: str, what: str) -> RasrError:
    """The error for an index that must not be searched."""
    return RasrError(f"{location}: the index is damaged ({what}); delete it and build it again with index.py")


def unfinished(location: str) -> RasrError:
    """The error for an index whose writer has not closed it."""
    return RasrError(
        f"{location}: the index is being written, or its writing was interrupted; wait for the writer, "
        "or run the same index.py command again to finish it"
    )


def check_finished(location: str, meta: IndexMeta, allow_unfinished: bool) -> None:
    """Refuse what an interrupted writer left, unless it is wanted."""
    if meta.state != "complete" and not allow_unfinished:
        raise unfinished(location)


def is_url(location: str | Path) -> bool:
    """Tell whether an index lies on a server."""
    return str(location).startswith(("http://", "https://"))


def read_meta(path: Path) -> IndexMeta:
    file = path / META_FILE
    if not file.is_file():
        raise RasrError(f"{path}: no index here; build one with: python index.py database=DIR index={path}")
    try:
        values = json.loads(file.read_text())
    except ValueError as error:
        raise damaged(str(path), f"{META_FILE} cannot be read") from error
    return IndexMeta.from_dict(values, str(path))


def write_meta(path: Path, meta: IndexMeta) -> None:
    with atomic_path(path / META_FILE) as temporary, temporary.open("wb") as file:
        file.write(json.dumps(meta.to_dict(), indent=1).encode())
        flush(file)


def flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def fingerprint(path: Path, files: Iterable[Path]) -> dict[str, list[int]]:
    """Size, checksum of samples and checksum of the whole of each file, by its name below `path`."""
    return {
        file.relative_to(path).as_posix(): [file.stat().st_size, _sample(file), _checksum(file)]
        for file in files
    }


def check_files(path: Path, files: Iterable[Path], known: Mapping[str, list[int]], whole: bool) -> None:
    """Compare files with their fingerprints.

    Args:
        path: the index.
        files: what lies there.
        known: what should lie there, made by `fingerprint`.
        whole: read every byte, not only samples.
    """
    found = {file.relative_to(path).as_posix(): file for file in files}
    for name in sorted(found.keys() ^ known.keys()):
        raise damaged(str(path), f"{name} is {'new' if name in found else 'missing'}")
    for name, (size, sample, checksum) in known.items():
        file = found[name]
        if file.stat().st_size != size or _sample(file) != sample:
            raise damaged(str(path), f"{name} has changed")
        if whole and _checksum(file) != checksum:
            raise damaged(str(path), f"{name} has changed")


def _sample(file: Path) -> int:
    """CRC-32 of up to 64 blocks spread evenly over the file: a large file is not read at every open."""
    size = file.stat().st_size
    checksum = 0
    with file.open("rb") as stream:
        blocks = -(-size // _BLOCK)
        for number in range(min(blocks, _SAMPLES)):
            stream.seek(number * (blocks - 1) // max(1, min(blocks, _SAMPLES) - 1) * _BLOCK)
            checksum = zlib.crc32(stream.read(_BLOCK), checksum)
    return checksum


def _checksum(file: Path) -> int:
    checksum = 0
    with file.open("rb") as stream:
        while block := stream.read(1 << 20):
            checksum = zlib.crc32(block, checksum)
    return checksum
