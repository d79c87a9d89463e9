"""Compares a folder of restored images with its ground truth and writes the figures down.

Files are matched by relative path without the extension: `sr/cat/a.png` belongs to `gt/cat/a.jpg`.
"""

import csv
import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rasr.errors import RasrError
from rasr.evaluation.metrics import METRICS, PROTOCOL
from rasr.image_io import ImageReadError, atomic_path, list_images, read_image

logger = logging.getLogger(__name__)


def evaluate_folders(
    sr: str | Path, gt: str | Path, *, metrics: Sequence[str], strict: bool
) -> dict[str, Any]:
    """Compute the metrics of every matching pair.

    Args:
        sr: directory of restored images, or one image.
        gt: directory of ground-truth images, or one image.
        metrics: names out of `METRICS`.
        strict: raise on missing, extra, unreadable or size-mismatched files; otherwise leave them out of the
            figures, with a warning.

    Returns:
        The report: `mean` {metric: value}, `per_image` {name: {metric: value}}, `protocol`, `count` and
        `problems` (one text per file that was left out).
    """
    unknown = [name for name in metrics if name not in METRICS]
    if unknown or not metrics:
        named = ", ".join(unknown) or "none given"
        raise RasrError(f"unknown metric: {named}; known are {', '.join(METRICS)}")
    pairs, problems = match_files(sr, gt)
    if strict:
        _refuse(problems)  # before the long part

    per_image = {}
    for name, (sr_file, gt_file) in tqdm(pairs.items(), desc="evaluate", unit="image"):
        try:
            sr_image, gt_image = read_image(sr_file), read_image(gt_file)
        except ImageReadError as error:
            problems.append(f"unreadable {error}")
            continue
        if sr_image.shape != gt_image.shape:
            sizes = " and ".join(f"{image.shape[2]}x{image.shape[1]}" for image in (sr_image, gt_image))
            problems.append(f"different sizes {sr_file} and {gt_file} ({sizes})")
            continue
        try:
            per_image[name] = {metric: float(METRICS[metric](sr_image, gt_image)) for metric in metrics}
        except RasrError as error:  # such as an image below the metric's smallest size
            problems.append(f"unmeasurable {sr_file}: {error}")

    if strict:
        _refuse(problems)
    for problem in problems:
        logger.warning("left out: %s", problem)
    if not per_image:
        raise RasrError(f"no pair to compare in {sr} and {gt}; the names without extension must be the same")
    mean = {metric: sum(row[metric] for row in per_image.values()) / len(per_image) for metric in metrics}
    return {
        "mean": mean,
        "per_image": per_image,
        "protocol": PROTOCOL,
        "count": len(per_image),
        "problems": problems,
    }


def match_files(sr: str | Path, gt: str | Path) -> tuple[dict[str, tuple[Path, Path]], list[str]]:
    """Match restored and ground-truth files by relative path without the extension.

    Returns:
        {name: (sr file, gt file)}, sorted by name, and one text per file that has no partner.
    """
    sr_files, gt_files = _by_name(sr), _by_name(gt)
    if Path(sr).is_file() and Path(gt).is_file():  # two single files are a pair whatever their names
        return {Path(gt).stem: (Path(sr), Path(gt))}, []
    problems = [f"missing in sr {gt_files[name]}" for name in sorted(gt_files.keys() - sr_files.keys())]
    problems += [f"extra in sr {sr_files[name]}" for name in sorted(sr_files.keys() - gt_files.keys())]
    common = sorted(sr_files.keys() & gt_files.keys())
    return {name: (sr_files[name], gt_files[name]) for name in common}, problems


def write_report(report: dict[str, Any], output: str | Path) -> None:
    """Write `metrics.json` (the whole report) and `metrics.csv` (one row per image) into a directory."""
    output = Path(output)
    with atomic_path(output / "metrics.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", *report["mean"]])
        writer.writerows([name, *values.values()] for name, values in report["per_image"].items())
    with atomic_path(output / "metrics.json") as temporary:
        temporary.write_text(
            json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n", "utf-8"
        )


def _by_name(path: str | Path) -> dict[str, Path]:
    root = Path(path)
    files = list_images(root)
    if root.is_file():
        return {root.stem: root}
    names = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise RasrError(f"{root}: several files for {', '.join(twins)}; keep one of each")
    return dict(zip(names, files, strict=True))


def _refuse(problems: list[str]) -> None:
    if problems:
        raise RasrError(f"{'; '.join(problems)}; mend the folders or add strict=false to leave these out")
