"""Writes measured figures down: JSON, CSV, Markdown, LaTeX."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rasr.evaluation.metrics import METRICS
from rasr.evaluation.tables import Column, Table, TableRow, to_csv, to_latex, to_markdown
from rasr.image_io import atomic_path


def write_report(report: dict[str, Any], output: str | Path) -> None:
    """Write `metrics.json` (the whole report) and `metrics.csv` (one row per image) into a directory."""
    output = Path(output)
    names = [name for name in report["mean"] if METRICS[name].per_image]
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(["name", *names])
    writer.writerows([name, *values.values()] for name, values in report["per_image"].items())
    write_text(stream.getvalue(), output / "metrics.csv")
    write_json(report, output / "metrics.json")


def metrics_table(title: str, reports: dict[str, dict[str, Any]], metrics: Sequence[str]) -> Table:
    """One row per method, one column per metric that at least one report has.

    Args:
        title: over the table.
        reports: {label: report of `evaluate_folders`}.
        metrics: the wanted columns, in order.
    """
    shown = [name for name in metrics if any(name in report["mean"] for report in reports.values())]
    rows = [
        TableRow(label, [report["mean"].get(name) for name in shown]) for label, report in reports.items()
    ]
    notes = [*notes_of(reports), *warn_of_other_images(reports)]
    return Table(title, [column_of(name) for name in shown], rows, notes)


def column_of(metric: str, group: str = "") -> Column:
    """The column of a metric."""
    info = METRICS[metric]
    return Column(info.title, info.digits, info.lower_better, group)


def notes_of(reports: dict[str, dict[str, Any]]) -> list[str]:
    """What must be known to compare the figures: protocol, versions, images, intervals, what is missing."""
    if not reports:
        return []
    first = next(iter(reports.values()))
    protocol = first["protocol"]
    measured = {name for report in reports.values() for name in report["mean"]}
    variants = "".join(
        f", {name} as {variant}" for name, variant in protocol["variants"].items() if name in measured
    )
    packages = ", ".join(f"{name} {found or 'absent'}" for name, found in first["versions"].items())
    notes = [
        f"Protocol {protocol['name']} ({protocol['digest']}): PSNR and SSIM on {protocol['channel']}, "
        f"{protocol['crop_border']} pixels of border cut{variants}; on the saved 8-bit files.",
        f"Versions: {packages}.",
    ]
    for label, report in reports.items():
        sizes = ", ".join(f"{count} of {size}" for size, count in report["sizes"].items())
        intervals = ", ".join(
            f"{METRICS[name].title} {low:.{METRICS[name].digits}f} to {high:.{METRICS[name].digits}f}"
            for name, (low, high) in report["interval"].items()
        )
        notes.append(f"{label}: N = {report['count']} ({sizes}); 95 % intervals of the means: {intervals}.")
        notes += [f"{label}: left out: {problem}" for problem in report["problems"]]
    unavailable = {name: why for report in reports.values() for name, why in report["unavailable"].items()}
    notes += [f"{METRICS[name].title} is unavailable: {why}" for name, why in unavailable.items()]
    return notes


def warn_of_other_images(reports: dict[str, dict[str, Any]]) -> list[str]:
    """A note if the methods of one data set were not measured on the same images."""
    if len({frozenset(report["per_image"]) for report in reports.values()}) < 2:
        return []
    labels = ", ".join(f"{label} {report['count']}" for label, report in reports.items())
    return [f"Not the same images ({labels}): the means cannot be compared; pair= takes the common ones."]


def write_table(table: Table, output: str | Path) -> None:
    """Write `table.md`, `table.tex`, `table.csv` and `table.json` into a directory."""
    output = Path(output)
    write_text(to_markdown(table), output / "table.md")
    write_text(to_latex(table), output / "table.tex")
    write_text(to_csv(table), output / "table.csv")
    write_json(asdict(table), output / "table.json")


def write_json(value: Any, path: Path) -> None:
    """Readable UTF-8; figures that are not finite are an error."""
    write_text(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text file that appears only when it is complete."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, "utf-8")
