"""What a reference brings: none, a wrong one, the right one, several; paired by photograph.

    python -m benchmarks.references --photos FOLDER --weights weights/rasr-small --output outputs/references

FOLDER holds photos/ (Set14/HR, urban100_crop512), categories/<name>/ and refsr/ (sceaux_sets, sceaux_views,
bedroom_frames); sets that are not there are left out. Several `--weights` are measured one after the other;
`FOLDER:residual` takes another fusion than a folder's first. The same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from benchmarks.reference_sets import ReferenceCase, ReferenceSet, find_reference_sets
from rasr.data.arguments import parse, whole
from rasr.degradation import RealESRGANDegradation
from rasr.drawing import PanelCell, draw_panel
from rasr.errors import RasrError
from rasr.evaluation import psnr, ssim
from rasr.evaluation.statistics import bootstrap_interval
from rasr.image_ops import resize_bicubic
from rasr.inference import Restorer
from rasr.models import load_rasr_net
from rasr.seeding import sample_seed

METHODS = ("bicubic", "none", "wrong", "right", "several", "same_photo")
SHOWN = ("bicubic", "none", "wrong", "right")
COMPARED = (
    ("right", "wrong"),
    ("right", "none"),
    ("wrong", "none"),
    ("same_photo", "none"),
    ("several", "right"),
    ("none", "bicubic"),
)
LOWER_IS_BETTER = {"gmsd"}
BORDER = 4
SHEET_ROWS = 6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True, help="folder with photos/, categories/, refsr/")
    parser.add_argument(
        "--weights", nargs="+", required=True, help="what load_rasr_net takes, or FOLDER:FUSION"
    )
    parser.add_argument("--output", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--sets", nargs="+", help="keys of the sets to measure; default all")
    parser.add_argument(
        "--limit", type=whole(1), help="photographs per set, spread over it, for a quick look"
    )
    parser.add_argument("--seed", type=int, default=0, help="of crops, views and degradation")
    args = parse(parser)
    sets = find_reference_sets(args.photos, seed=args.seed)
    known = [one.key for one in sets]
    unknown = set(args.sets or ()) - set(known)
    if unknown or not sets:
        raise RasrError(
            f"--sets {' '.join(sorted(unknown)) or '(all)'}: not below {args.photos}; there are "
            f"{', '.join(known) or 'none: see the photographs that --help names'}"
        )
    metrics = open_learnt_metrics()
    args.output.mkdir(parents=True, exist_ok=True)
    log = Log(args.output / "figures.jsonl")
    text = []
    for weights in args.weights:
        folder, _, fusion = weights.partition(":")
        net = load_rasr_net(folder, fusion=fusion or None)
        if net.fusion is None:
            raise RasrError(f"--weights {weights} is a backbone without a reference fusion")
        restorer = Restorer(net, conditioning_scale=1.0, device="cpu")
        name = f"{Path(folder).name}:{net.fusion.name}"
        mark = digest(restorer, args.seed)
        for one in sets:
            if args.sets and one.key not in args.sets:
                continue
            cases = (
                one.cases[:: max(1, len(one.cases) // args.limit)][: args.limit] if args.limit else one.cases
            )
            for strength in one.strengths:
                rows = measure(one, cases, strength, restorer, metrics, log, mark, args)
                text.append(report(name, one, strength, rows))
                print(text[-1], flush=True)
    (args.output / "references.md").write_text("\n".join(text))
    log.write_csv(args.output / "references.csv")
    print(f"tables: {args.output / 'references.md'}, figures of each photograph: references.csv")


class Log:
    """One JSON line per photograph, strength and net; a line that an interruption cut off is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[str, dict] = {}
        for line in path.read_text().splitlines() if path.is_file() else []:
            try:
                entry = json.loads(line)
                self.known[entry["key"]] = entry
            except (ValueError, KeyError, TypeError):
                continue

    def add(self, entry: dict) -> None:
        """Appends a line."""
        self.known[entry["key"]] = entry
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def write_csv(self, path: Path) -> None:
        """All figures as one table: a row per photograph and method."""
        with path.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["net", "set", "strength", "photograph", "method", "metric", "value"])
            for entry in self.known.values():
                for method, figures in entry["figures"].items():
                    for metric, value in figures.items():
                        writer.writerow([*entry["key"].split("|"), method, metric, value])


def measure(
    one: ReferenceSet,
    cases: list[ReferenceCase],
    strength: str,
    restorer: Restorer,
    metrics: dict,
    log: Log,
    mark: str,
    args: argparse.Namespace,
) -> list[dict]:
    """Figures of every photograph of a set; also draws its sheet."""
    degradation = RealESRGANDegradation(strength)
    rows, sheet = [], []
    for case in tqdm(cases, desc=f"{one.key} {strength}", unit="photo"):
        key = f"{mark}|{one.key}|{strength}|{case.name}"
        entry = log.known.get(key)
        if entry is None:
            images, seconds = restore_case(case, degradation, restorer, args.seed)
            gt = case.gt()
            figures = {method: score(image, gt, metrics) for method, image in images.items()}
            entry = {"key": key, "figures": figures, "seconds": seconds}
            log.add(entry)
            if len(sheet) < SHEET_ROWS:
                cells = [
                    PanelCell(method, images[method], f"{figures[method]['psnr']:.2f} dB")
                    for method in SHOWN
                    if method in images
                ]
                cells.append(PanelCell("truth", gt, case.name[-28:]))
                cells.append(PanelCell("right reference", case.refs["right"][0]()))
                sheet.append(cells)
        rows.append(entry)
    if sheet:
        draw_panel(sheet, args.output / f"sheet_{one.key}_{strength}_{mark}.png")
    return rows


def restore_case(
    case: ReferenceCase, degradation: RealESRGANDegradation, restorer: Restorer, seed: int
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A photograph by every method, and the seconds of none, of keeping the reference and of using it."""
    gt = case.gt()
    lq = degradation(gt[None], seeds=torch.tensor([sample_seed(seed, case.name)]))[0]
    images = {"bicubic": resize_bicubic(lq[None], tuple(gt.shape[-2:]))[0]}
    start = time.perf_counter()
    images["none"] = restorer.restore(lq)
    seconds = {"none": time.perf_counter() - start}
    fusion = restorer.net.fusion
    for method, reads in case.refs.items():
        if fusion.max_references is not None and len(reads) > fusion.max_references:
            continue
        refs = [read() for read in reads]
        if fusion.keeps_any_size:
            start = time.perf_counter()
            refs = [restorer.keep(ref) for ref in refs]
            seconds.setdefault("keep", (time.perf_counter() - start) / len(refs))
        start = time.perf_counter()
        images[method] = restorer.restore(lq, refs)
        seconds[method] = time.perf_counter() - start
    return images, seconds


def score(image: Tensor, gt: Tensor, metrics: dict) -> dict[str, float]:
    """Every metric on the 256 levels of a file, without `BORDER` pixels at each side."""
    cut = (slice(None), slice(BORDER, -BORDER), slice(BORDER, -BORDER))
    image, gt = ((x[cut].clamp(0, 1) * 255).round()[None] / 255 for x in (image, gt))
    figures = {"psnr": psnr(image, gt, color="rgb").item(), "ssim": ssim(image, gt, color="rgb").item()}
    return figures | {name: float(metric(image, gt)) for name, metric in metrics.items()}


def open_learnt_metrics() -> dict:
    """GMSD and FSIM, which need pyiqa but no weights."""
    try:
        import pyiqa
    except ImportError:
        print("GMSD and FSIM are left out: pip install -e '.[eval]'")
        return {}
    return {name: pyiqa.create_metric(name, device="cpu") for name in ("gmsd", "fsim")}


def report(name: str, one: ReferenceSet, strength: str, rows: list[dict]) -> str:
    """Two Markdown tables: means, and paired differences with 95 % intervals and wins."""
    means: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        for method, figures in row["figures"].items():
            for metric, value in figures.items():
                means[method][metric].append(value)
    metrics = list(means["none"])
    lines = [f"\n### {name}: {one.title}, {strength} ({len(rows)} photographs)\n"]
    lines += ["| | " + " | ".join(m.upper() for m in metrics) + " |", "|---" * (len(metrics) + 1) + "|"]
    for method in METHODS:
        if method in means:
            values = (sum(means[method][m]) / len(means[method][m]) for m in metrics)
            lines.append(f"| {method} | " + " | ".join(f"{v:.4f}" for v in values) + " |")
    for a, b in COMPARED:
        both = [row["figures"] for row in rows if a in row["figures"] and b in row["figures"]]
        if both:
            cells = [" ".join(difference([f[a][m] - f[b][m] for f in both], m)) for m in metrics]
            lines.append(f"| **{a} - {b}** | " + " | ".join(cells) + " |")
    seconds = {
        kind: [row["seconds"][kind] for row in rows if kind in row["seconds"]] for kind in ("none", "right")
    }
    if all(seconds.values()):
        none, right = (sorted(values)[len(values) // 2] for values in seconds.values())
        lines.append(
            f"\nMedian seconds: {none:.2f} none, {right:.2f} right ({100 * (right / none - 1):+.0f} %)."
        )
    return "\n".join(lines)


def difference(values: list[float], metric: str) -> Iterator[str]:
    """Mean, interval and share of photographs on which the first is better."""
    digits = 2 if metric == "psnr" else 4
    low, high = bootstrap_interval(values)
    better = sum((v < 0) if metric in LOWER_IS_BETTER else (v > 0) for v in values) / len(values)
    yield f"{sum(values) / len(values):+.{digits}f}"
    yield f"({low:+.{digits}f}..{high:+.{digits}f})"
    yield f"{100 * better:.0f} %"


def digest(restorer: Restorer, seed: int) -> str:
    """Short mark of everything that decides a result."""
    net = restorer.net
    parts = [net.fusion.fingerprint(net.backbone), net.color_fix, seed]
    total = hashlib.sha256(json.dumps(parts).encode())
    for tensor in (*net.fusion.state_dict().values(), *net.backbone.vae.decoder.state_dict().values()):
        total.update(tensor.detach().cpu().bfloat16().contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:10]


if __name__ == "__main__":
    main()
