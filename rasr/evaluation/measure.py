"""Measures a folder of restored images, resumably and in batches."""

from __future__ import annotations

import hashlib
import logging
import math
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rasr.errors import RasrError
from rasr.evaluation.folders import check_pairs, describe_mismatch, match_files, refuse
from rasr.evaluation.metrics import METRICS
from rasr.evaluation.protocol import EvaluationProtocol, check_metrics
from rasr.evaluation.score_store import ScoreStore
from rasr.evaluation.statistics import bootstrap_interval
from rasr.evaluation.toolbox import Metric, open_metrics, versions
from rasr.image_io import ImageReadError, content_hash, read_image, write_png

logger = logging.getLogger(__name__)


@dataclass
class _Pair:
    name: str
    sr: Tensor
    gt: Tensor | None
    hashes: tuple[str, str | None]


def evaluate_folders(
    sr: str | Path,
    gt: str | Path | None,
    *,
    metrics: Sequence[str],
    protocol: EvaluationProtocol | None = None,
    strict: bool = True,
    batch_size: int = 1,
    device: str | torch.device = "cpu",
    store: str | Path | None = None,
) -> dict[str, Any]:
    """Compute the metrics of every matching pair.

    Args:
        sr: directory of restored images, or one image.
        gt: directory of ground-truth images, or one image; None allows no-reference metrics only.
        metrics: names out of `METRICS`.
        protocol: the convention; None is OSEDiff's.
        strict: raise on missing, extra, unreadable or size-mismatched files; otherwise leave them out of the
            figures, with a warning.
        batch_size: images of one size that are measured together.
        device: of the learnt metrics.
        store: file of figures that are known already; new ones are added to it.

    Returns:
        The report: `mean` {metric: value}, `interval` {metric: (low, high)} of 95 %, `per_image`
        {name: {metric: value}}, `files` {name: {"sr": path, "gt": path}}, `protocol`, `versions`, `sizes`
        {"WxH": images}, `count`, `problems` (one text per file that was left out), `unavailable`
        {metric: reason}.
    """
    protocol = protocol or EvaluationProtocol()
    if batch_size < 1:
        raise RasrError(f"batch_size={batch_size} measures nothing; give 1 or more")
    names = check_metrics(metrics, has_gt=gt is not None)
    # Before the long part.
    pairs, problems = (check_pairs(sr, gt), []) if strict else match_files(sr, gt)
    opened, unavailable = open_metrics(names, protocol, device)
    for name, reason in unavailable.items():
        logger.warning("%s is unavailable: %s", name, reason)
    if not opened:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in unavailable.items())
        raise RasrError(f"none of the metrics can be had: {reasons}")

    of_images = [metric for metric in opened.values() if METRICS[metric.name].per_image]
    figures: dict[str, dict[str, float]] = {}
    files, sizes = {}, Counter()
    hashes = {}
    with ScoreStore(None if store is None else Path(store)) as known:
        for batch in _batches(_read(pairs, protocol, problems), batch_size):
            for pair, row in _measure_batch(batch, of_images, known):
                sr_file, gt_file = pairs[pair.name]
                if isinstance(row, RasrError):  # such as an image below the metric's smallest size
                    problems.append(f"unmeasurable {sr_file}: {row}")
                    continue
                figures[pair.name] = row
                files[pair.name] = {"sr": str(sr_file), "gt": None if gt_file is None else str(gt_file)}
                hashes[pair.name] = pair.hashes
                sizes[f"{pair.sr.shape[2]}x{pair.sr.shape[1]}"] += 1
        if strict:
            refuse(problems)
        for problem in problems:
            logger.warning("left out: %s", problem)
        if not figures:
            raise RasrError(
                f"no pair to compare in {sr} and {gt}; the names without extension must be the same"
            )
        of_set = [metric for metric in opened.values() if not METRICS[metric.name].per_image]
        whole = {m.name: _measure_set(m, files, list(hashes.values()), known) for m in of_set}

    figures, files = dict(sorted(figures.items())), dict(sorted(files.items()))
    columns = {name: [row[name] for row in figures.values()] for name in opened if name not in whole}
    mean = {name: math.fsum(values) / len(values) for name, values in columns.items()} | whole
    return {
        "mean": {name: mean[name] for name in opened},
        "interval": {name: bootstrap_interval(values) for name, values in columns.items()},
        "per_image": figures,
        "files": files,
        "protocol": protocol.describe(),
        "versions": versions(),
        "sizes": dict(sizes),
        "count": len(figures),
        "problems": problems,
        "unavailable": unavailable,
    }


def _read(
    pairs: dict[str, tuple[Path, Path | None]], protocol: EvaluationProtocol, problems: list[str]
) -> Iterator[_Pair]:
    """The pairs that can be compared; texts about the others go into `problems`."""
    for name, (sr_file, gt_file) in tqdm(pairs.items(), desc="evaluate", unit="image"):
        try:
            sr = read_image(sr_file)
            gt = None if gt_file is None else read_image(gt_file)
            hashes = content_hash(sr_file), None if gt_file is None else content_hash(gt_file)
        except ImageReadError as error:
            problems.append(f"unreadable {error}")
            continue
        if gt is not None and sr.shape != gt.shape:
            problems.append(describe_mismatch(sr_file, gt_file, tuple(sr.shape), tuple(gt.shape)))
            continue
        if min(sr.shape[1:]) <= 2 * protocol.crop_border:
            problems.append(f"unmeasurable {sr_file}: a border of {protocol.crop_border} leaves nothing")
            continue
        yield _Pair(name, sr, gt, hashes)


def _batches(pairs: Iterator[_Pair], size: int) -> Iterator[list[_Pair]]:
    """Up to `size` pairs of one shape; the order of the shapes is that of their first full batch."""
    waiting: dict[torch.Size, list[_Pair]] = defaultdict(list)
    for pair in pairs:
        batch = waiting[pair.sr.shape]
        batch.append(pair)
        if len(batch) >= size:
            yield waiting.pop(pair.sr.shape)
    yield from waiting.values()


def _measure_batch(
    batch: list[_Pair], metrics: Sequence[Metric], known: ScoreStore
) -> Iterator[tuple[_Pair, dict[str, float] | RasrError]]:
    """Figures of every pair; where a batch fails, its images are tried one by one."""
    try:
        yield from zip(batch, _measure(batch, metrics, known), strict=True)
    except RasrError as error:
        if len(batch) == 1:
            yield batch[0], error
            return
        for pair in batch:
            yield from _measure_batch([pair], metrics, known)


def _measure(batch: list[_Pair], metrics: Sequence[Metric], known: ScoreStore) -> list[dict[str, float]]:
    """One row of figures per pair."""
    rows: list[dict[str, float]] = [{} for _ in batch]
    for metric in metrics:
        needs_gt = METRICS[metric.name].needs_gt
        keys = [(metric.identity, p.hashes[0], p.hashes[1] if needs_gt else None) for p in batch]
        missing = [index for index, key in enumerate(keys) if known.get(*key) is None]
        groups = [missing] if metric.is_batched else [[index] for index in missing]
        for group in groups:
            if not group:
                continue
            sr = torch.stack([batch[index].sr for index in group])
            gt = None if batch[0].gt is None else torch.stack([batch[index].gt for index in group])
            with torch.inference_mode():
                values = metric.measure(sr, gt).double().flatten().tolist()
            for index, value in zip(group, values, strict=True):
                if not math.isfinite(value):
                    raise RasrError(f"{metric.name} gives {value}; leave {metric.name} out")
                known.add(*keys[index], value)
        for row, key in zip(rows, keys, strict=True):
            row[metric.name] = known.get(*key)
    return rows


def _measure_set(
    metric: Metric, files: dict[str, dict[str, Any]], hashes: list[tuple[str, str | None]], known: ScoreStore
) -> float:
    """A figure of the whole set, from folders that hold exactly the images that were compared."""
    key = tuple(
        hashlib.sha256("".join(sorted(str(pair[side]) for pair in hashes)).encode()).hexdigest()
        for side in (0, 1)
    )
    value = known.get(metric.identity, *key)
    if value is None:
        with tempfile.TemporaryDirectory() as folder:
            for index, pair in enumerate(files.values()):
                for side in ("gt", "sr"):
                    _place(Path(pair[side]), Path(folder) / side / f"{index:06d}")
            value = metric.measure(Path(folder) / "gt", Path(folder) / "sr")
        known.add(metric.identity, *key, value)
    return value


def _place(file: Path, target: Path) -> None:
    """Make an image appear at `target` under a suffix that every toolbox knows."""
    if file.suffix.lower() in (".png", ".jpg", ".jpeg"):
        target.parent.mkdir(exist_ok=True)
        target.with_suffix(file.suffix.lower()).symlink_to(file.resolve())
    else:
        write_png(read_image(file), target.with_suffix(".png"))
