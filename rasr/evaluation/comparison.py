"""Two methods on the same images: is the difference real, and where is it?"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rasr.drawing.panel import PanelCell, draw_panel
from rasr.errors import RasrError
from rasr.evaluation.metrics import METRICS
from rasr.evaluation.report import write_json, write_text
from rasr.evaluation.statistics import bootstrap_interval, sign_test
from rasr.image_io import read_image


@dataclass(frozen=True)
class Comparison:
    """One metric of two methods, paired by image; differences are first minus second."""

    metric: str
    count: int
    mean_difference: float
    interval: tuple[float, float]
    """95 % bootstrap interval of the mean difference."""
    wins: int
    """Images on which the first method is better."""
    losses: int
    p_value: float
    """Two-sided sign test."""


def compare_reports(first: dict[str, Any], second: dict[str, Any]) -> list[Comparison]:
    """Compare two reports of `evaluate_folders` in all per-image metrics that both have.

    Args:
        first: figures of one method.
        second: those of the other, of the same images under the same protocol.
    """
    if first["protocol"]["digest"] != second["protocol"]["digest"]:
        names = " and ".join(report["protocol"]["name"] for report in (first, second))
        raise RasrError(f"the protocols differ ({names}); measure both under one")
    names = sorted(first["per_image"].keys() & second["per_image"].keys())
    if not names:
        raise RasrError("the two methods have no image in common; compare them on the same images")
    common = first["interval"].keys() & second["interval"].keys()
    if not common:
        raise RasrError(
            "the two methods have no per-image metric in common; add one, such as psnr, to metrics="
        )
    comparisons = []
    for metric in [metric for metric in first["interval"] if metric in common]:
        differences = list(_differences(first, second, metric, names).values())
        sign = -1 if METRICS[metric].lower_better else 1
        comparisons.append(
            Comparison(
                metric=metric,
                count=len(names),
                mean_difference=sum(differences) / len(differences),
                interval=bootstrap_interval(differences),
                wins=sum(sign * difference > 0 for difference in differences),
                losses=sum(sign * difference < 0 for difference in differences),
                p_value=sign_test(differences),
            )
        )
    return comparisons


def write_comparisons(comparisons: list[Comparison], labels: tuple[str, str], output: Path) -> None:
    """Write `pair.json` and `pair.md` into a directory."""
    write_json({"methods": labels, "metrics": [asdict(c) for c in comparisons]}, output / "pair.json")
    lines = [
        f"**{labels[0]} against {labels[1]}**, {comparisons[0].count} images; differences are "
        f"{labels[0]} - {labels[1]}",
        "",
        "| Metric | mean difference | 95 % interval | better | worse | sign test p |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for c in comparisons:
        info = METRICS[c.metric]
        low, high = (f"{end:+.{info.digits}f}" for end in c.interval)
        arrow = "↓" if info.lower_better else "↑"
        lines.append(
            f"| {info.title} {arrow} | {c.mean_difference:+.{info.digits}f} | {low} to {high} | {c.wins} | "
            f"{c.losses} | {c.p_value:.2g} |"
        )
    write_text("\n".join(lines) + "\n", output / "pair.md")


def largest_differences(first: dict[str, Any], second: dict[str, Any], metric: str, count: int) -> list[str]:
    """Names of the images on which the methods differ most, in either direction."""
    names = sorted(first["per_image"].keys() & second["per_image"].keys())
    differences = _differences(first, second, metric, names)
    return sorted(names, key=lambda name: -abs(differences[name]))[:count]


def draw_largest_differences(
    reports: tuple[dict[str, Any], dict[str, Any]],
    labels: tuple[str, str],
    metric: str,
    path: Path,
    *,
    count: int = 8,
) -> None:
    """Draw the images on which two methods differ most in a metric: both results and the ground truth.

    Args:
        reports: of the two methods.
        labels: their names.
        metric: what the images are chosen by; a per-image metric of both reports.
        path: PNG to write.
        count: rows.
    """
    rows = []
    for name in largest_differences(*reports, metric, count):
        cells = []
        for report, label in zip(reports, labels, strict=True):
            caption = f"{report['per_image'][name][metric]:.{METRICS[metric].digits}f}"
            cells.append(PanelCell(label, read_image(report["files"][name]["sr"]), caption))
        gt = reports[0]["files"][name]["gt"]
        if gt is not None:
            cells.append(PanelCell("ground truth", read_image(gt), name))
        rows.append(cells)
    draw_panel(rows, path)


def _differences(
    first: dict[str, Any], second: dict[str, Any], metric: str, names: list[str]
) -> dict[str, float]:
    return {name: first["per_image"][name][metric] - second["per_image"][name][metric] for name in names}
