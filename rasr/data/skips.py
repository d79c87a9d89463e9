"""The record of samples that could not be read in training, so that nothing is replaced in silence.

A data set gives the next sample in place of an unreadable one, always the same, and says so in the sample's
`skipped`. The data module hands every batch to a :class:`SkipLog`.
"""

import csv
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

COLUMNS = ("epoch", "replaced_by", "skipped")


class SkipLog:
    """Counts skipped samples, logs each bad file once and appends every case to a CSV file.

    Args:
        path: the CSV file, made when the first sample is skipped; None writes none.
        rank: of this process; every rank but the first adds its number to the file's name.

    Attributes:
        count: samples skipped so far, in this process.
    """

    def __init__(self, path: str | Path | None, *, rank: int = 0) -> None:
        self.path = None if path is None else Path(path)
        if self.path is not None and rank > 0:
            self.path = self.path.with_stem(f"{self.path.stem}_rank{rank}")
        self.count = 0
        self._known: set[str] = set()

    def record(self, batch: Any, epoch: int) -> None:
        """Take note of the batch's skipped samples; a batch without that key has none."""
        if not isinstance(batch, Mapping) or not any(batch.get("skipped", ())):
            return
        cases = [case for case in zip(batch["sample_id"], batch["skipped"], strict=True) if case[1]]
        for replacement, skipped in cases:
            self.count += 1
            if skipped not in self._known:
                self._known.add(skipped)
                logger.warning(
                    "sample skipped, %s takes its place (skipped so far: %d, bad files: %d): %s",
                    *(replacement, self.count, len(self._known), skipped),
                )
        if self.path is not None:
            self._append([(epoch, *case) for case in cases])

    def _append(self, lines: list[tuple]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerows([COLUMNS, *lines] if is_new else lines)
