"""What the engines that live in a folder share: `meta.json`, relative paths, detection of damage."""

import os
import shutil
from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from rasr.errors import RasrError
from rasr.retrieval.engines.base import ReferenceIndex
from rasr.retrieval.meta import (
    META_FILE,
    IndexMeta,
    check_files,
    check_finished,
    damaged,
    fingerprint,
    read_meta,
    write_meta,
)
from rasr.retrieval.payload import Payload


class FolderIndex(ReferenceIndex):
    """An index in a folder. Besides the engine's own files it may hold others, which are left alone."""

    PARTS: tuple[str, ...]
    """Names of the engine's own files and folders; patterns as in `Path.glob`."""

    def __init__(self, location: str, meta: IndexMeta) -> None:
        super().__init__(location, meta)
        self.path = Path(location)

    @classmethod
    def make(cls, location: str, meta: IndexMeta) -> "FolderIndex":
        path = Path(location)
        leftovers = _leftovers(path, cls.PARTS) if path.is_dir() else []
        if path.exists() and (not path.is_dir() or len(leftovers) < len(os.listdir(path))):
            raise RasrError(f"{path}: exists already; choose another place or delete it")
        for leftover in leftovers:  # of a creation that was interrupted before it wrote meta.json
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        path.mkdir(parents=True, exist_ok=True)
        index = cls(location, meta)
        index._make_storage()
        write_meta(path, index._meta)
        return index

    @classmethod
    def load(cls, location: str, allow_unfinished: bool) -> "FolderIndex":
        index = cls(location, read_meta(Path(location)))
        check_finished(location, index._meta, allow_unfinished)
        if index._meta.state == "complete":
            check_files(index.path, index._files(), index._meta.files, whole=False)
        index._load_storage()
        if index._meta.state == "complete" and index.count() != index._meta.count:
            raise damaged(location, f"{index._meta.count} entries were written, {index.count()} are there")
        return index

    def check_storage(self) -> None:
        """Read every byte of the index's files; damage is a RasrError."""
        if self._meta.state == "complete":
            check_files(self.path, self._files(), self._meta.files, whole=True)

    @abstractmethod
    def _make_storage(self) -> None: ...

    @abstractmethod
    def _load_storage(self) -> None: ...

    def _complete(self) -> None:
        self._update_meta(state="complete", count=self.count(), files=fingerprint(self.path, self._files()))

    def _update_meta(self, **changes: Any) -> None:
        self._meta = replace(self._meta, **changes)
        write_meta(self.path, self._meta)

    def _files(self) -> list[Path]:
        found = [part for pattern in self.PARTS for part in self.path.glob(pattern)]
        below = [file for part in found if part.is_dir() for file in part.rglob("*")]
        return sorted(file for file in found + below if file.is_file())

    def _stored_path(self, path: str) -> str:
        absolute = os.path.abspath(path)
        try:
            return os.path.relpath(absolute, self.path.resolve())
        except ValueError:  # another drive
            return absolute

    def _opened(self, payload: Payload) -> Payload:
        return replace(payload, path=os.path.normpath(self.path.resolve() / payload.path))


def _leftovers(path: Path, patterns: Iterable[str]) -> list[Path]:
    if (path / META_FILE).exists():
        return []
    return [found for pattern in (*patterns, "lock", ".*.part") for found in path.glob(pattern)]
