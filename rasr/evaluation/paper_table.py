"""The tables of the papers: their figures, and ours for what lies on this machine.

`conf/options/table.yaml` has one entry per table. Its `sets` are data sets, its `rows` methods with the
paper's figures, one per metric. Our figures come from folders: a row's own `folder`, else `RESULTS/SET/ROW`.
A row with `is_spread` has a folder of trials, each a folder of restorations; its figures are half the range
of their means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rasr.errors import RasrError
from rasr.evaluation.metrics import METRICS
from rasr.evaluation.report import column_of, notes_of, warn_of_other_images
from rasr.evaluation.tables import Column, Table, TableRow

# Columns that no image gives: read from a `complexity.json` beside the restorations.
COMPLEXITY = {
    "parameters": Column("Parameters (M)", 1, lower_better=True),
    "memory": Column("Memory (GiB)", 1, lower_better=True),
    "seconds": Column("Seconds", 2, lower_better=True),
}


def read_columns(table: dict[str, Any]) -> list[Column]:
    """The columns of all data sets, with the set's title where there are several."""
    several = len(table["sets"]) > 1
    columns = []
    for data_set in table["sets"].values():
        group = data_set["title"] if several else ""
        for name in table["metrics"]:
            column = COMPLEXITY[name] if name in COMPLEXITY else column_of(name, group)
            columns.append(replace(column, digits=table.get("digits", column.digits)))
    return columns


def fill_table(
    table: dict[str, Any],
    results: str | Path,
    evaluate: Callable[[str, str, Path], dict[str, Any]],
    produced: dict[tuple[str, str], Path] | None = None,
) -> tuple[Table, dict[tuple[str, str], dict[str, Any]]]:
    """Measure what is there and set it beside the paper's figures.

    Args:
        table: content of `table` in an entry of `conf/options/table.yaml`.
        results: folder with our and others' restorations, as `results/wr_sr/seesr`.
        evaluate: (set, row, folder of restorations) -> report of `evaluate_folders`.
        produced: {(set, row): folder} of what was restored just now; goes before everything else.

    Returns:
        The table, whose notes name what is missing; and the reports by set and row.
    """
    check_table(table)
    produced = produced or {}
    has_gt = {key: one["gt"] is None or Path(one["gt"]).exists() for key, one in table["sets"].items()}
    reports: dict[tuple[str, str], dict[str, Any]] = {}
    absent: dict[str, list[str]] = {key: [] for key in table["sets"]}
    rows = []
    for key, row in table["rows"].items():
        values: list[float | None] = []
        for set_key in table["sets"]:
            folder = produced.get((set_key, key)) or _folder_of(row, Path(results), set_key, key)
            if has_gt[set_key] and folder.exists() and row.get("is_spread"):
                values += _spread(table["metrics"], set_key, key, folder, evaluate)
            elif has_gt[set_key] and folder.exists():
                reports[set_key, key] = evaluate(set_key, key, folder)
                values += _values(table["metrics"], reports[set_key, key], folder)
            else:
                values += [None] * len(table["metrics"])
                absent[set_key].append(f"{row['label']} at {folder}")
        published = [figure for set_key in table["sets"] for figure in row["paper"][set_key]]
        rows.append(TableRow(row["label"], values, published, is_ranked=not row.get("is_spread", False)))
    labelled = {
        f"{table['rows'][key]['label']} on {table['sets'][set_key]['title']}": report
        for (set_key, key), report in reports.items()
    }
    notes = [*table.get("notes", []), *notes_of(labelled)]
    for set_key in table["sets"]:
        of_set = {
            table["rows"][key]["label"]: report for (one, key), report in reports.items() if one == set_key
        }
        notes += warn_of_other_images(of_set)
    notes += _missing(table, has_gt, absent)
    return Table(table["title"], read_columns(table), rows, notes), reports


def _missing(table: dict[str, Any], has_gt: dict[str, bool], absent: dict[str, list[str]]) -> list[str]:
    """What would have to be on this machine, and how it comes there."""
    lines = []
    for set_key, data_set in table["sets"].items():
        if not has_gt[set_key]:
            place = Path(data_set["gt"]).parent
            lines.append(f"{data_set['title']}: no ground truth at {data_set['gt']}; {how_to_make(place)}")
        if absent[set_key]:
            lines.append(f"{data_set['title']}: no figures of {', '.join(absent[set_key])}; {table['how']}")
    return lines


def how_to_make(place: Path) -> str:
    """What makes a test set, as the end of a sentence."""
    return (
        f"make the test set by python -m rasr.tools degrade input=PHOTOGRAPHS output={place} seed=0 "
        "degradation=realesrgan"
    )


def check_table(table: dict[str, Any]) -> None:
    """Refuse a table whose figures do not fit its columns."""
    unknown = [name for name in table["metrics"] if name not in METRICS and name not in COMPLEXITY]
    if unknown:
        raise RasrError(
            f"table {table['name']}: unknown metric {', '.join(unknown)}; mend conf/options/table.yaml"
        )
    for key, row in table["rows"].items():
        for set_key in table["sets"]:
            figures = row["paper"].get(set_key, [])
            if len(figures) != len(table["metrics"]):
                raise RasrError(
                    f"table {table['name']}: row {key} has {len(figures)} figures of {set_key}, not "
                    f"{len(table['metrics'])}; mend conf/options/table.yaml"
                )


def _folder_of(row: dict[str, Any], results: Path, set_key: str, key: str) -> Path:
    return Path(row["folder"]) if row.get("folder") else results / set_key / key


def _spread(
    metrics: Sequence[str],
    set_key: str,
    key: str,
    folder: Path,
    evaluate: Callable[[str, str, Path], dict[str, Any]],
) -> list[float | None]:
    """Half the range of the means of several trials."""
    trials = sorted(path for path in folder.iterdir() if path.is_dir())
    if len(trials) < 2:
        raise RasrError(f"{folder}: a spread needs two trials or more, each a folder in it")
    means = [evaluate(set_key, f"{key}/{trial.name}", trial)["mean"] for trial in trials]
    columns = [[mean[name] for mean in means if name in mean] for name in metrics]
    return [(max(values) - min(values)) / 2 if values else None for values in columns]


def _values(metrics: Sequence[str], report: dict[str, Any], folder: Path) -> list[float | None]:
    file = folder / "complexity.json"
    complexity = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    return [complexity.get(name) if name in COMPLEXITY else report["mean"].get(name) for name in metrics]
