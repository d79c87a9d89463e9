"""What `evaluate.py` does: one function per job, whose parameters are the keys that it reads."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from rasr.device import resolve_device
from rasr.errors import RasrError
from rasr.evaluation.baselines import Baseline, FolderBaseline, gather_baselines
from rasr.evaluation.comparison import compare_reports, draw_largest_differences, write_comparisons
from rasr.evaluation.complexity import ComplexityCase, format_complexity
from rasr.evaluation.folders import check_pairs, match_files, refuse
from rasr.evaluation.html_report import ResultSet, write_contents, write_html
from rasr.evaluation.measure import evaluate_folders
from rasr.evaluation.paper_table import COMPLEXITY, fill_table, how_to_make
from rasr.evaluation.protocol import EvaluationProtocol, check_metrics
from rasr.evaluation.report import metrics_table, write_json, write_report, write_table
from rasr.evaluation.tables import Table, to_markdown

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Measuring:
    """What is measured, and how; see `evaluate_folders`."""

    metrics: Sequence[str] = ("psnr", "ssim")
    protocol: EvaluationProtocol | None = None
    strict: bool = True
    batch_size: int = 1
    device: str = "auto"

    def measure(self, sr: str | Path, gt: str | Path | None, output: Path) -> dict[str, Any]:
        """Measure a folder and write its own result files into `output`; gives the report."""
        report = evaluate_folders(
            sr,
            gt,
            metrics=[name for name in self.metrics if name not in COMPLEXITY],
            protocol=self.protocol,
            strict=self.strict,
            batch_size=self.batch_size,
            device=resolve_device(self.device),
            store=output / "scores.jsonl",
        )
        write_report(report, output)
        return report


@dataclass(frozen=True)
class Page:
    """How `report.html` shows the results; see `write_html`."""

    report_images: int = 8
    """0 writes no page."""
    report_crop: int = 192
    references: str | None = None
    """Folder that the references' names in `results.jsonl` are relative to."""


@dataclass(frozen=True)
class Results:
    """What a job has written, for what else is done with it."""

    table: Table
    page: Path | None


# Parameters that stand for several keys.
_GROUPS = {"measuring": Measuring, "page": Page}


def score(
    sr: str,
    output: str,
    measuring: Measuring,
    page: Page,
    gt: str | None = None,
    lq: str | None = None,
) -> Results:
    """Measure one folder of restored images.

    Args:
        sr: directory of restored images (searched recursively), or one image.
        output: directory for the results.
        measuring: metrics and protocol.
        page: of the results.
        gt: ground truth, matched by relative path without the extension; None: no-reference metrics only.
        lq: the photographs, shown in the page.
    """
    report = measuring.measure(sr, gt, Path(output))
    label = Path(sr).resolve().name
    table = metrics_table(label, {label: report}, list(measuring.metrics))
    results = _write_results(output, table, [ResultSet({label: "."}, lq)], page)
    means = ", ".join(f"{name} {value:.4f}" for name, value in report["mean"].items())
    logger.info("%s over %d images; written to %s", means, report["count"], output)
    return results


def compare(
    output: str,
    measuring: Measuring,
    page: Page,
    baselines: Mapping[str, Baseline] | None = None,
    folders: Mapping[str, str] | None = None,
    gt: str | None = None,
    lq: str | None = None,
    pair: Sequence[str] | None = None,
) -> Results:
    """Measure several baselines on one data set; those that restore do it first.

    Args:
        output: directory for the results.
        measuring: metrics and protocol.
        page: of the results.
        baselines: by key.
        folders: {key: directory} of further ones.
        gt: as for `score`.
        lq: the photographs that are restored.
        pair: keys of two, compared image by image.
    """
    if not baselines and not folders:
        raise RasrError("missing key: baselines; add baselines=[...] or folders={NAME: DIR}, see --help")
    root, device = Path(output), resolve_device(measuring.device)
    check_metrics(measuring.metrics, has_gt=gt is not None)  # before anything is restored
    rows = gather_baselines(baselines, folders)
    photographs = None if lq is None else Path(lq)
    waiting = [row.label for row in rows.values() if row.needs_lq]
    if waiting and photographs is None:
        raise RasrError(f"{', '.join(waiting)}: photographs to restore are missing; give lq=FOLDER")
    if pair is not None and (len(set(pair)) != 2 or not set(pair) <= set(rows)):
        raise RasrError(f"pair=[{','.join(pair)}] must name two of the baselines {', '.join(rows)}")
    if measuring.strict:
        _check_files(rows, photographs, gt)
    reports = {}
    for key, row in rows.items():
        folder = row.restore_folder(photographs, root / key / "sr", device)
        reports[key] = measuring.measure(folder, gt, root / key)
    labels = {key: row.label for key, row in rows.items()}
    _write_pair([(labels[key], reports[key]) for key in pair or ()], root)
    labelled = {labels[key]: report for key, report in reports.items()}
    count = "1 method" if len(rows) == 1 else f"{len(rows)} methods"
    title = f"{count} on {Path(gt).name if gt else 'images without ground truth'}"
    table = metrics_table(title, labelled, list(measuring.metrics))
    results = _write_results(output, table, [ResultSet({labels[key]: key for key in rows}, lq)], page)
    logger.info("%s\nwritten to %s", to_markdown(table), output)
    return results


def reproduce_table(
    table: Mapping[str, Any],
    output: str,
    measuring: Measuring,
    page: Page,
    results: str = "results",
    baselines: Mapping[str, Baseline] | None = None,
    folders: Mapping[str, str] | None = None,
) -> Results:
    """A table of the papers: its figures, and ours for what is on this machine.

    Args:
        table: description, as `table` in an entry of `conf/options/table.yaml`.
        output: directory for the results.
        measuring: metrics, out of the table's, and protocol.
        page: of the results.
        results: directory of the restorations that are there, as `results/wr_sr/seesr`.
        baselines: rows that are restored first, by key.
        folders: {row: directory} that goes before the one in `results`.
    """
    root, device = Path(output), resolve_device(measuring.device)
    rows = gather_baselines(baselines, folders)
    unknown = [key for key in rows if key not in table["rows"]]
    if unknown:
        known = ", ".join(table["rows"])
        raise RasrError(f"table {table['name']} has no row {', '.join(unknown)}; its rows are {known}")
    columns = table["metrics"]
    if not set(measuring.metrics) <= set(columns):
        raise RasrError(f"metrics=[{','.join(measuring.metrics)}]: the table has only {', '.join(columns)}")
    produced = {}
    for set_key, data_set in table["sets"].items():
        for key, row in rows.items():
            lq = Path(data_set["lq"])
            if row.needs_lq and not lq.exists():
                mend = how_to_make(lq.parent)
                raise RasrError(f"{row.label} on {data_set['title']}: no photographs at {lq}; {mend}")
            produced[set_key, key] = row.restore_folder(lq, root / set_key / key / "sr", device)

    def evaluate(set_key: str, key: str, folder: Path) -> dict[str, Any]:
        return measuring.measure(folder, table["sets"][set_key]["gt"], root / set_key / key)

    filled, reports = fill_table(table, results, evaluate, produced)
    sets = []
    for set_key, data_set in table["sets"].items():
        keys = [key for one, key in reports if one == set_key]
        labelled = {f"{table['rows'][key]['label']} on {data_set['title']}": key for key in keys}
        lq = data_set["lq"] if Path(data_set["lq"]).exists() else None
        sets.append(ResultSet({label: f"{set_key}/{key}" for label, key in labelled.items()}, lq))
    written = _write_results(output, filled, sets, page)
    logger.info("%s\nwritten to %s", to_markdown(filled), output)
    return written


def measure_complexity(
    complexity: Mapping[str, Any], output: str, size: int = 512, repeats: int = 5, device: str = "auto"
) -> None:
    """Parameters, MACs, seconds and memory.

    Args:
        complexity: `case`, a `ComplexityCase`, and `paper`, published figures by name.
        output: directory for `complexity.json`.
        size: side of the result, pixels.
        repeats: timed runs.
        device: auto, cpu, cuda or mps.
    """
    case: ComplexityCase = complexity["case"]
    figures = case.measure(size, repeats, resolve_device(device))
    figures |= {"size": size, "repeats": repeats, "device": str(resolve_device(device))}
    write_json(figures, Path(output) / "complexity.json")
    logger.info("%s", "\n".join(format_complexity(figures, dict(complexity["paper"]))))
    logger.info("written to %s", Path(output) / "complexity.json")


def remake_page(output: str, report_images: int = 8, report_crop: int = 192) -> None:
    """Make `report.html` anew from the result files in `output`."""
    logger.info("written: %s", write_html(output, images=report_images, crop_size=report_crop))


class Job:
    """A job with its keys.

    Args:
        run: one of the functions above.
        also: keys that it reads through others, such as `${weights}` in a baseline.
    """

    def __init__(self, run: Callable[..., Results | None], *also: str) -> None:
        self.run = run
        parameters = inspect.signature(run).parameters
        self._groups = {name: group for name, group in _GROUPS.items() if name in parameters}
        self._own = {name: one for name, one in parameters.items() if name not in _GROUPS}
        self.needed = [name for name, one in self._own.items() if one.default is one.empty]
        """Keys that it cannot do without."""
        self.read = {*also, *self._own}
        """All keys that it reads."""
        for group in self._groups.values():
            self.read |= {field.name for field in fields(group)}

    def __call__(self, values: Mapping[str, Any]) -> Results | None:
        """Run with those of the values that it reads."""
        own = {name: values[name] for name in self._own if name in values}
        for name, group in self._groups.items():
            own[name] = group(**{field.name: values[field.name] for field in fields(group)})
        return self.run(**own)


JOBS = {
    "score": Job(score, "wandb"),
    "compare": Job(compare, "weights", "index", "wandb"),
    "table": Job(reproduce_table, "weights", "index", "testsets", "wandb"),
    "complexity": Job(measure_complexity, "weights", "index"),
    "report": Job(remake_page),
}


def _check_files(rows: Mapping[str, Baseline], lq: Path | None, gt: str | None) -> None:
    """Refuse files that do not fit together before hours are spent on restoring."""
    for row in rows.values():
        if isinstance(row, FolderBaseline):
            check_pairs(row.folder, gt)
    if lq is not None and lq.is_dir() and any(row.needs_lq for row in rows.values()):
        refuse(match_files(lq, gt, kind="lq")[1])


def _write_pair(pair: Sequence[tuple[str, dict[str, Any]]], output: Path) -> None:
    """The comparison of two labelled reports; without any, those of an earlier run go."""
    if not pair:
        for name in ("pair.json", "pair.md", "pair.png"):
            (output / name).unlink(missing_ok=True)
        return
    names, reports = zip(*pair, strict=True)
    comparisons = compare_reports(*reports)
    write_comparisons(comparisons, names, output)
    draw_largest_differences(reports, names, comparisons[0].metric, output / "pair.png")
    logger.info("%s", (output / "pair.md").read_text("utf-8"))


def _write_results(output: str, table: Table, sets: Sequence[ResultSet], page: Page) -> Results:
    write_table(table, output)
    write_contents(Path(output), sets, references=page.references)
    if not page.report_images:
        return Results(table, None)
    return Results(table, write_html(output, images=page.report_images, crop_size=page.report_crop))
