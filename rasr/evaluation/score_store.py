"""Figures that were measured before: what is known is not measured again."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType

SCORES_FILE = "scores.jsonl"


class ScoreStore:
    """One JSON line per figure, written as soon as it is measured.

    A figure belongs to the contents of the files and to the identity of the metric, so it stays true when
    files are renamed, and is not found when they or the protocol have changed.

    Args:
        path: the file; it is made with its first figure. None keeps nothing on disk.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._known: dict[tuple[str, str, str | None], float] = {}
        self._file = None
        for line in path.read_text("utf-8").splitlines() if path is not None and path.is_file() else []:
            try:
                row = json.loads(line)
                self._known[row["metric"], row["sr"], row["gt"]] = row["value"]
            except (ValueError, KeyError, TypeError):  # the line that an interruption cut off
                continue

    def __enter__(self) -> ScoreStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, metric: str, sr: str, gt: str | None) -> float | None:
        """A known figure; `metric` is an identity, `sr` and `gt` are content hashes."""
        return self._known.get((metric, sr, gt))

    def add(self, metric: str, sr: str, gt: str | None, value: float) -> None:
        """Keep a figure."""
        self._known[metric, sr, gt] = value
        if self.path is None:
            return
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The new line ends what an interruption may have cut off.
            self._file = self.path.open("a", encoding="utf-8")
            self._file.write("\n" if self._file.tell() else "")
        self._file.write(json.dumps({"metric": metric, "sr": sr, "gt": gt, "value": value}) + "\n")
        self._file.flush()
