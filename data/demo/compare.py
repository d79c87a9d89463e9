"""Last step of the demo: comparison picture and figures, from what the other steps wrote.

Reads pairs.csv (prepare.py), the four runs of infer.py in the folder, outputs/demo, and their figures in
metrics/ (evaluate.py); writes panel.png and metrics.json there. What it prints last is what a reference
brings: the right one minus a wrong one, on the same photographs. Both are given, from right/ and wrong/, so
that the figure does not hang on retrieval; the run with what retrieval finds by itself has lines of its own.
"""

import argparse
import csv
import json
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from rasr.drawing import PanelCell, draw_panel
from rasr.errors import RasrError
from rasr.image_io import list_images, read_image

log = logging.getLogger("compare")

METHODS = {
    "bicubic": "bicubic",
    "without": "without reference",
    "wrong": "wrong reference",
    "retrieved": "retrieved reference",
    "right": "right reference",
}
DIFFERENCES = (("wrong", "without"), ("retrieved", "without"), ("right", "without"), ("right", "wrong"))
GROUPS: dict[str, Callable[[dict], bool]] = {
    "all": lambda pair: True,
    "real pairs": lambda pair: pair["kind"] == "real",
    "made views": lambda pair: pair["kind"] == "made",
    "mild": lambda pair: pair["degradation"] == "mild",
    "realesrgan": lambda pair: pair["degradation"] == "realesrgan",
}
KINDS = {"real": "real pair", "made": "made view"}
PANEL_ROWS = 9
DETAIL = 256  # side of the window that the panel shows, pixels of the restored photograph
PROVENANCE_SIDE, PROVENANCE_CORNER = (
    512,
    (542, 46),
)  # second picture of infer.py's provenance strip: side; left, top


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo"), help="folder of the results")
    parser.add_argument("--data", type=Path, default=Path("outputs/demo/pairs"), help="folder of prepare.py")
    args = parser.parse_args()
    try:
        write_summary(args.folder, args.data)
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")


def write_summary(folder: Path, data: Path) -> None:
    """Write `panel.png` and `metrics.json`; the last line it prints is the path of the picture.

    Args:
        folder: results of infer.py and evaluate.py.
        data: what prepare.py wrote.
    """
    pairs = read_pairs(data)
    scores = read_scores(folder, pairs)
    records = {run: read_records(folder / run) for run in METHODS if run != "bicubic"}
    summary = summarize(pairs, scores, records)
    summary["retrieval"] = retrieval_accuracy(data, pairs, records["retrieved"])
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw_panel(panel_rows(folder, data, pairs, scores, records), folder / "panel.png", cell_size=256)
    for line in summary_lines(summary):
        log.info("%s", line)
    log.info("figures: %s", folder / "metrics.json")
    log.info("picture: %s", folder / "panel.png")


def read_pairs(data: Path) -> list[dict[str, str]]:
    """Return the lines of pairs.csv."""
    path = data / "pairs.csv"
    if not path.is_file():
        raise RasrError(f"{path}: no such file; run data/demo/prepare.py first")
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_scores(folder: Path, pairs: list[dict[str, str]]) -> dict[str, dict[str, dict[str, float]]]:
    """Return {method: {name: {"psnr": dB, "ssim": ...}}}; every pair must have been measured."""
    scores = {}
    for method in METHODS:
        path = folder / "metrics" / method / "metrics.json"
        measured = json.loads(path.read_text())["per_image"] if path.is_file() else {}
        lost = [pair["name"] for pair in pairs if pair["name"] not in measured]
        if lost:
            raise RasrError(f"{path}: no figures of {', '.join(lost)}; run make demo again")
        scores[method] = {pair["name"]: measured[pair["name"]] for pair in pairs}
    return scores


def read_records(folder: Path) -> dict[str, dict]:
    """Return the lines of an infer.py run by the photograph's name."""
    lines = (folder / "results.jsonl").read_text().splitlines()
    return {Path(record["output"]).stem: record for record in map(json.loads, lines)}


def summarize(
    pairs: list[dict[str, str]], scores: dict[str, dict], records: dict[str, dict[str, dict]]
) -> dict[str, dict]:
    """Return the figures of metrics.json: per group of pairs the means, and the differences with wins."""
    groups = {}
    for label, belongs in GROUPS.items():
        names = [pair["name"] for pair in pairs if belongs(pair)]
        if not names:
            continue
        methods = {
            method: {key: _mean([by_name[name][key] for name in names]) for key in ("psnr", "ssim")}
            for method, by_name in scores.items()
        }
        differences = {}
        for better, worse in DIFFERENCES:
            gains = [scores[better][name]["psnr"] - scores[worse][name]["psnr"] for name in names]
            wins = sum(gain > 0 for gain in gains)
            differences[f"{better} minus {worse}"] = {"psnr": _mean(gains), "wins": wins}
        groups[label] = {"images": len(names), "methods": methods, "differences": differences}
    summary = {"groups": groups, "seconds_per_image": {}, "restored_share": {}}
    for run, by_name in records.items():
        summary["seconds_per_image"][run] = round(_mean([r["seconds"] for r in by_name.values()]), 4)
        shares = [r["restored_share"] for r in by_name.values() if r.get("restored_share") is not None]
        if shares:
            summary["restored_share"][run] = round(_mean(shares), 4)
    return summary


def summary_lines(summary: dict) -> list[str]:
    """Return the summary as it is printed."""
    groups = summary["groups"]
    lines = []
    for method, label in METHODS.items():
        mean = groups["all"]["methods"][method]
        lines.append(f"{label:<19} PSNR {mean['psnr']:6.2f} dB   SSIM {mean['ssim']:.4f}")
    if summary["restored_share"]:
        shares = (f"{METHODS[run]} {100 * share:.0f} %" for run, share in summary["restored_share"].items())
        lines.append(f"taken from the reference, share of the area: {', '.join(shares)}")
    retrieval = summary["retrieval"]
    lines.append(
        f"retrieval: the right scene for {retrieval['right']} of {retrieval['images']}, "
        f"by chance {retrieval['chance']:.1f}"
    )
    for difference in (f"{better} minus {worse}" for better, worse in DIFFERENCES):
        lines.append(_difference_line(difference, groups["all"], difference))
        if difference == "right minus wrong":
            lines += [
                _difference_line(f"  {label}", group, difference)
                for label, group in groups.items()
                if label != "all"
            ]
    return lines


def _difference_line(label: str, group: dict, difference: str) -> str:
    found = group["differences"][difference]
    return f"{label}: {found['psnr']:+.2f} dB, better on {found['wins']} of {group['images']}"


def retrieval_accuracy(data: Path, pairs: list[dict[str, str]], records: dict[str, dict]) -> dict[str, float]:
    """How many references are of the photograph's scene, and how many random ones would be."""
    database = data / "database"
    counts = Counter(path.relative_to(database).parts[0] for path in list_images(database))
    return {
        "right": sum(_is_right_scene(pair, records) for pair in pairs),
        "images": len(pairs),
        "chance": sum(counts[pair["scene"]] for pair in pairs) / counts.total(),
    }


def panel_rows(
    folder: Path,
    data: Path,
    pairs: list[dict[str, str]],
    scores: dict[str, dict],
    records: dict[str, dict[str, dict]],
) -> list[list[PanelCell]]:
    """Return one row per photograph: the real pairs first, then made views, as many as the panel holds."""
    shown = sorted(pairs, key=lambda pair: pair["kind"] != "real")[:PANEL_ROWS]
    truths = {pair["name"]: read_image(data / "test" / f"{pair['name']}.png") for pair in shown}
    strips = {pair["name"]: folder / "right" / "provenance" / f"{pair['name']}.png" for pair in shown}
    has_strips = all(strip.is_file() for strip in strips.values())
    rows = []
    for pair in shown:
        name, file = pair["name"], f"{pair['name']}.png"
        truth, record = truths[name], records["right"][name]
        bicubic = read_image(folder / "metrics" / "bicubic" / "sr" / file)
        top, left = worst_window(bicubic, truth)

        def cell(label: str, image: Tensor, caption: str, top: int = top, left: int = left) -> PanelCell:
            return PanelCell(label, image[:, top : top + DETAIL, left : left + DETAIL], caption)

        psnr = {method: f"{scores[method][name]['psnr']:.2f} dB" for method in METHODS}
        found = records["retrieved"][name]
        is_found = _is_right_scene(pair, records["retrieved"])
        retrieved = "found" if is_found else f"not found, but {Path(found['reference']).parts[0]}"
        row = [
            PanelCell(
                "LR, and the detail shown",
                frame_window(read_image(data / "lr" / file), top, left),
                f"{name}: {KINDS[pair['kind']]}, {pair['degradation']}",
            ),
            cell("bicubic", bicubic, psnr["bicubic"]),
            *(
                cell(METHODS[run], read_image(folder / run / file), psnr[run] + note)
                for run, note in {
                    "without": "",
                    "wrong": f" ({Path(pair['wrong']).parts[0]})",
                    "right": "",
                }.items()
            ),
            cell("truth", truth, "PSNR of the whole"),
            PanelCell(
                "the right reference",
                read_image(data / "database" / pair["reference"]),
                f"{retrieved}, cosine {found['score']:.2f}",
            ),
        ]
        if has_strips:
            share = record.get("restored_share")
            caption = "" if share is None else f"{100 * share:.0f} % from the reference"
            row.append(PanelCell("coloured: taken from it", provenance_map(strips[name], truth), caption))
        rows.append(row)
    return rows


def worst_window(bicubic: Tensor, truth: Tensor) -> tuple[int, int]:
    """Return (top, left) of the window in which bicubic enlargement errs most: where detail is to be had.

    No method that is compared has a say in it.

    Args:
        bicubic: (3, H, W) in [0, 1].
        truth: likewise.
    """
    step = 8
    error = F.avg_pool2d((bicubic - truth).square().mean(0)[None, None], step)
    window = [min(DETAIL // step, side) for side in error.shape[-2:]]
    means = F.avg_pool2d(error, window, stride=1)[0, 0]
    place = int(means.argmax())
    return place // means.shape[1] * step, place % means.shape[1] * step


def frame_window(lq: Tensor, top: int, left: int) -> Tensor:
    """Return the LR image x4, its own pixels showing, with a frame around the window; (3, 4h, 4w)."""
    picture = F.interpolate(lq[None], scale_factor=4, mode="nearest")[0]
    inside = torch.zeros(picture.shape[-2:], dtype=torch.bool)
    width = 6
    inside[top : top + DETAIL, left : left + DETAIL] = True
    inside[top + width : top + DETAIL - width, left + width : left + DETAIL - width] = False
    return torch.where(inside, torch.tensor([1.0, 0.85, 0.0])[:, None, None], picture)


def provenance_map(strip: Path, truth: Tensor) -> Tensor:
    """Cut the coloured map out of the strip that `infer.py provenance=true` draws, (3, h, w) in [0, 1].

    Args:
        strip: result, map and references side by side, each fitted into a square.
        truth: (3, H, W), to know the map's proportions.
    """
    picture = read_image(strip)
    height, width = (round(side * PROVENANCE_SIDE / max(truth.shape[1:])) for side in truth.shape[1:])
    left = PROVENANCE_CORNER[0] + (PROVENANCE_SIDE - width) // 2
    top = PROVENANCE_CORNER[1] + (PROVENANCE_SIDE - height) // 2
    return picture[:, top : top + height, left : left + width]


def _is_right_scene(pair: dict[str, str], records: dict[str, dict]) -> bool:
    return Path(records[pair["name"]]["reference"]).parts[0] == pair["scene"]


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


if __name__ == "__main__":
    main()
