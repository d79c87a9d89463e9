"""results.jsonl: what was made of each photograph, and where an interrupted run goes on."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any

from rasr.errors import RasrError

RESULTS_FILE = "results.jsonl"
PARTIAL_FILE = "results.partial.jsonl"


class ResultsLog:
    """One JSON line per restored photograph.

    The lines go into `results.partial.jsonl`, which becomes `results.jsonl` when the run ends. Where a run
    was interrupted, the next one with the same settings finds the partial file and passes over what it names,
    as long as the photograph has the same content and its result is there. A run that could not restore some
    photographs writes both files. After a run that ended well, everything is made anew: weights and index may
    have changed under the same names.

    Args:
        folder: output folder; made if it is missing.
        settings: everything that decides the results besides the photographs, as plain values.
        keep_finished: take over what runs that ended well have made.
    """

    def __init__(self, folder: str | Path, settings: dict[str, Any], *, keep_finished: bool = False) -> None:
        self.folder = Path(folder)
        self.settings = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RasrError(f"output={folder} cannot be made a folder; give another path") from error
        self._partial = self.folder / PARTIAL_FILE
        files = [self._partial, *([self.folder / RESULTS_FILE] if keep_finished else [])]
        records = [record for file in files for record in read_records(file)]
        self._done = {(r["output"], r["content_hash"]): r for r in records if self._holds(r)}

    def __enter__(self) -> ResultsLog:
        self._file = self._partial.open("w")
        for record in self._done.values():
            self._write(record)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if kind is None:
            self._partial.replace(self.folder / RESULTS_FILE)
        elif issubclass(kind, RasrError):  # what could be restored is there; what could not may be mended
            shutil.copyfile(self._partial, self.folder / RESULTS_FILE)

    def is_done(self, output: Path, content_hash: str) -> bool:
        """Whether the interrupted run has put that photograph into `output` already."""
        return (str(output), content_hash) in self._done

    def add(self, record: dict[str, Any]) -> None:
        """Appends a line; `record` holds `output` (path) and `content_hash` (of the photograph)."""
        self._write(record | {"settings": self.settings})

    def _write(self, record: dict[str, Any]) -> None:
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()

    def _holds(self, record: dict[str, Any]) -> bool:
        is_ours = record.get("settings") == self.settings and "content_hash" in record
        return is_ours and Path(str(record.get("output", ""))).is_file()


def read_records(file: Path) -> list[dict[str, Any]]:
    """The records of a `results.jsonl`; without a line that was cut off; empty without a file."""
    records = []
    for line in file.read_text("utf-8").splitlines() if file.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


def output_paths(paths: list[Path], root: Path, output: Path) -> list[Path]:
    """PNG target of each input; inputs that differ only in their suffix keep it as part of the name."""
    relative = [path.relative_to(root) for path in paths]
    stems = [path.with_suffix("") for path in relative]
    return [
        output / (f"{path}.png" if stems.count(stem) > 1 else f"{stem}.png")
        for path, stem in zip(relative, stems, strict=True)
    ]
