"""One HTML file with everything in it: tables, scatter, crops under a slider, retrieved references.

It is made from what `evaluate.py` wrote: `report.json` names the `metrics.json` of every method.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jinja2 import Environment
from PIL import Image
from torch import Tensor

from rasr.errors import RasrError
from rasr.evaluation.folders import files_by_name
from rasr.evaluation.metrics import METRICS
from rasr.evaluation.report import write_json, write_text
from rasr.evaluation.tables import Column, Table, TableRow, ranks
from rasr.image_io import read_image, to_uint8
from rasr.image_ops import resize_bicubic
from rasr.inference.results import read_records

_TEMPLATE = Path(__file__).with_name("report.html")


@dataclass
class Picture:
    """A crop, or the whole reference, as it stands in the page."""

    label: str
    source: str
    """data: URI."""


@dataclass
class Example:
    """One photograph in the page."""

    name: str
    crops: list[Picture]
    """LR enlarged, the methods, the ground truth; all of one place."""
    shown: tuple[int, int]
    """Which crops stand left and right at first: the LR, or the first method; and the last method."""
    references: list[Picture]
    """What was retrieved for it, whole."""


@dataclass
class ResultSet:
    """The methods on one data set; their images belong together by name."""

    methods: dict[str, str]
    """{label: folder with its `metrics.json`}, relative to the folder of the results."""
    lq: str | None = None
    """Folder of the photographs, if known."""


def write_contents(output: Path, sets: Sequence[ResultSet], *, references: str | None) -> None:
    """Write `report.json`: where the results lie.

    Args:
        output: folder of the results.
        sets: what was measured.
        references: folder that the ids of references in `results.jsonl` are relative to, if known.
    """
    write_json({"sets": [asdict(one) for one in sets], "references": references}, output / "report.json")


def write_html(output: str | Path, *, images: int = 8, crop_size: int = 192) -> Path:
    """Make `report.html` from the result files of a folder.

    Args:
        output: folder that `evaluate.py` wrote.
        images: how many photographs of a data set are shown: those on which the methods differ most, or of a
            single method the worst, by the first per-image metric.
        crop_size: side of the crops, pixels; each lies where the images differ most.

    Returns:
        The file.
    """
    output = Path(output)
    contents = _read_json(output / "report.json")
    table = _read_table(output / "table.json")
    examples, points = [], {}
    for one in [ResultSet(**raw) for raw in contents["sets"]]:
        reports = {
            label: _read_json(output / folder / "metrics.json") for label, folder in one.methods.items()
        }
        for name in choose_images(list(reports.values()), images):
            examples.append(_example(name, reports, one.lq, contents["references"], crop_size))
        points |= _points(reports)
    pair = output / "pair.json"
    environment = Environment(autoescape=True)
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # methods and metrics in their order
    page = environment.from_string(_TEMPLATE.read_text("utf-8")).render(
        table=table,
        marks=ranks(table),
        has_published=any(row.published for row in table.rows),
        pair=_read_json(pair) if pair.is_file() else None,
        metrics=METRICS,
        examples=examples,
        points=points,
    )
    write_text(page, output / "report.html")
    return output / "report.html"


def choose_images(reports: Sequence[dict[str, Any]], count: int) -> list[str]:
    """Names of the images worth a look, the most telling first."""
    if not reports:
        return []
    common = sorted(set.intersection(*(set(report["per_image"]) for report in reports)))
    metric = next((name for name in reports[0]["interval"]), None)
    if metric is None or any(metric not in report["interval"] for report in reports):
        return common[:count]
    sign = 1 if METRICS[metric].lower_better else -1

    def interest(name: str) -> float:
        values = [report["per_image"][name][metric] for report in reports]
        return max(values) - min(values) if len(values) > 1 else sign * values[0]

    return sorted(common, key=lambda name: -interest(name))[:count]


def find_crop(images: Sequence[Tensor], size: int) -> tuple[int, int, int, int]:
    """Where images of one place differ most.

    Args:
        images: (3, H, W) each, in [0, 1], of one size; the last one is what the others are compared with.
        size: side of the crop, pixels.

    Returns:
        left, top, right, bottom; the whole side where the image is smaller than `size`.
    """
    height, width = images[-1].shape[-2:]
    window = min(size, height), min(size, width)
    error = torch.zeros(1, 1, height, width)
    for image in images[:-1]:
        error += (image - images[-1]).abs().mean(0)
    # A stride of a few pixels is close enough and sixteen times as fast.
    stride = 4
    mean = F.avg_pool2d(error, window, stride=stride)[0, 0]
    top, left = divmod(int(mean.argmax()), mean.shape[1])
    top, left = top * stride, left * stride
    return left, top, left + window[1], top + window[0]


def _example(
    name: str, reports: dict[str, dict[str, Any]], lq: str | None, references: str | None, crop_size: int
) -> Example:
    labelled = [(label, read_image(report["files"][name]["sr"])) for label, report in reports.items()]
    first = next(iter(reports.values()))["files"][name]
    photograph = None if lq is None else files_by_name(lq).get(name)
    if photograph is not None:
        labelled.insert(0, ("LR", resize_bicubic(read_image(photograph)[None], labelled[0][1].shape[-2:])[0]))
    if first["gt"] is not None:
        labelled.append(("ground truth", read_image(first["gt"])))
    size = labelled[-1][1].shape
    labelled = [(label, image) for label, image in labelled if image.shape == size]
    left, top, right, bottom = find_crop([image for _, image in labelled], crop_size)
    crops = [Picture(label, _data_uri(image[:, top:bottom, left:right])) for label, image in labelled]
    shown = 0, max(0, len(crops) - (1 if first["gt"] is None else 2))
    if shown[1] == 0:  # a single method without its photograph stands against the ground truth
        shown = 0, len(crops) - 1
    return Example(name, crops, shown, _references(name, reports, references))


def _references(name: str, reports: dict[str, dict[str, Any]], root: str | None) -> list[Picture]:
    """The references that `infer.py` noted in the `results.jsonl` beside the restorations."""
    found = []
    for label, report in reports.items():
        record = _record_of(Path(report["files"][name]["sr"]))
        reference = record.get("reference")
        if not reference:
            continue
        places = [Path(reference), *([Path(root) / reference] if root is not None else [])]
        file = next((place for place in places if place.is_file()), None)
        score = f", cosine {record['score']:.3f}" if record.get("score") is not None else ""
        text = f"reference of {label}: {reference}{score}"
        found.append(Picture(text, "" if file is None else _data_uri(_shrink(read_image(file), 256))))
    return found


def _record_of(sr: Path) -> dict[str, Any]:
    """The line of a restoration in the nearest `results.jsonl` above it."""
    log = next((p / "results.jsonl" for p in sr.parents if (p / "results.jsonl").is_file()), None)
    if log is None:
        return {}
    wanted = sr.relative_to(log.parent)
    return next((r for r in read_records(log) if _ends_with(Path(str(r.get("output", ""))), wanted)), {})


def _ends_with(path: Path, tail: Path) -> bool:
    return path.parts[-len(tail.parts) :] == tail.parts


def _points(reports: dict[str, dict[str, Any]]) -> dict[str, dict[str, dict[str, float]]]:
    """{label: {metric: {image: figure}}} for the scatter."""
    return {
        label: {
            METRICS[metric].title: {name: row[metric] for name, row in report["per_image"].items()}
            for metric in report["interval"]
        }
        for label, report in reports.items()
    }


def _shrink(image: Tensor, size: int) -> Tensor:
    ratio = min(1.0, size / max(image.shape[-2:]))
    height, width = (max(1, round(side * ratio)) for side in image.shape[-2:])
    return resize_bicubic(image[None], (height, width))[0].clamp(0, 1)


def _data_uri(image: Tensor) -> str:
    stream = io.BytesIO()
    Image.fromarray(to_uint8(image)).save(stream, format="PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def _read_table(path: Path) -> Table:
    raw = _read_json(path)
    columns = [Column(**column) for column in raw["columns"]]
    return Table(raw["title"], columns, [TableRow(**row) for row in raw["rows"]], raw["notes"])


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise RasrError(f"{path}: no such file; give the output folder of an evaluation")
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise RasrError(f"{path}: not JSON; run the evaluation again") from error
