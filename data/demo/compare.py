"""Last step of the demo: bicubic baseline, comparison picture and figures from what the other steps wrote.

    python data/demo/compare.py bicubic    enlarges the LR images
    python data/demo/compare.py summary    writes panel.png and metrics.json, prints the figures

Both work on the folder outputs/demo (another with --folder).
"""

import argparse
import csv
import json
import logging
from collections import Counter
from pathlib import Path

from rasr.evaluation import PanelCell, draw_panel
from rasr.image_io import list_images, read_image, write_png
from rasr.image_ops import resize_bicubic

log = logging.getLogger("compare")

METHODS = {
    "bicubic": "bicubic",
    "untrained": "backbone before training",
    "without": "restored without reference",
    "with": "restored with reference",
}
RUNS = ("backbone", "rasr")
PANEL_ROWS = 8


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["bicubic", "summary"])
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo"))
    args = parser.parse_args()
    {"bicubic": write_bicubic, "summary": write_summary}[args.step](args.folder)


def write_bicubic(folder: Path) -> None:
    """Enlarges every LR image x4 as anybody would."""
    root = folder / "data" / "lr"
    for path in list_images(root):
        lq = read_image(path)
        size = (4 * lq.shape[1], 4 * lq.shape[2])
        write_png(resize_bicubic(lq[None], size)[0], folder / "bicubic" / path.relative_to(root))


def write_summary(folder: Path) -> None:
    """Writes `panel.png` and `metrics.json`; the last line it prints is the path of the picture."""
    scores = {name: json.loads((folder / f"metrics_{name}" / "metrics.json").read_text()) for name in METHODS}
    lines = (folder / "with" / "results.jsonl").read_text().splitlines()
    records = {
        Path(record["output"]).relative_to(folder / "with"): record for record in map(json.loads, lines)
    }
    summary = {
        "methods": {name: scores[name]["mean"] for name in METHODS},
        "images": len(records),
        "retrieval": retrieval_accuracy(folder, records),
        "seconds_per_image": {name: mean_seconds(folder / name) for name in ("without", "with")},
        "training_loss": {run: mean_ends(logged(folder / run, "train/loss_total")) for run in RUNS},
        "validation_psnr": {run: logged(folder / run, "val/psnr") for run in RUNS},
    }
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw_panel(panel_rows(folder, records, scores), folder / "panel.png", cell_size=192)

    for name, label in METHODS.items():
        mean = summary["methods"][name]
        log.info("%-28s PSNR %6.2f dB   SSIM %.4f", label, mean["psnr"], mean["ssim"])
    retrieval = summary["retrieval"]
    log.info(
        "retrieval: top-1 category %.0f %%, chance %.0f %%",
        100 * retrieval["top1"],
        100 * retrieval["chance"],
    )
    for run in RUNS:
        psnr = summary["validation_psnr"][run]
        losses = summary["training_loss"][run]
        log.info("training of %-9s loss %.4f -> %.4f", run + ":", *losses)
        log.info("   on its validation crops, PSNR %.4f -> %.4f dB", psnr[0], psnr[-1])
    log.info("figures: %s", folder / "metrics.json")
    log.info("picture: %s", folder / "panel.png")


def retrieval_accuracy(folder: Path, records: dict[Path, dict]) -> dict[str, float]:
    """How often the reference is of the query's category, and how often a random one would be."""
    database = folder / "data" / "database"
    counts = Counter(path.relative_to(database).parts[0] for path in list_images(database))
    total = counts.total()
    right = [Path(record["reference"]).parts[0] == name.parts[0] for name, record in records.items()]
    chance = [counts[name.parts[0]] / total for name in records]
    return {"top1": sum(right) / len(right), "chance": sum(chance) / len(chance)}


def mean_seconds(folder: Path) -> float:
    """Mean seconds per image of an infer.py run."""
    seconds = [json.loads(line)["seconds"] for line in (folder / "results.jsonl").read_text().splitlines()]
    return round(sum(seconds) / len(seconds), 4)


def logged(run: Path, column: str) -> list[float]:
    """A column of a run's log, over all starts of the run."""
    values = []
    for file in sorted(run.glob("logs/version_*/metrics.csv"), key=lambda file: int(file.parent.name[8:])):
        with file.open() as stream:
            values += [float(row[column]) for row in csv.DictReader(stream) if row.get(column)]
    return values


def mean_ends(values: list[float]) -> tuple[float, float]:
    """Means of the first and of the last tenth."""
    tenth = max(1, len(values) // 10)
    return sum(values[:tenth]) / tenth, sum(values[-tenth:]) / tenth


def panel_rows(folder: Path, records: dict[Path, dict], scores: dict[str, dict]) -> list[list[PanelCell]]:
    """One row per category, the first image of each."""
    first_of_category = {name.parts[0]: name for name in sorted(records, reverse=True)}
    rows = []
    for name in sorted(first_of_category.values())[:PANEL_ROWS]:

        def cell(label: str, method: str, name: Path = name) -> PanelCell:
            psnr = scores[method]["per_image"][name.with_suffix("").as_posix()]["psnr"]
            return PanelCell(label, read_image(folder / method / name), f"{psnr:.2f} dB")

        record = records[name]
        rows.append(
            [
                PanelCell("LR", read_image(folder / "data" / "lr" / name), name.with_suffix("").as_posix()),
                cell("bicubic", "bicubic"),
                cell("without reference", "without"),
                cell("with reference", "with"),
                PanelCell(
                    "the reference",
                    read_image(folder / "data" / "database" / record["reference"]),
                    f"cosine {record['score']:.3f}",
                ),
                PanelCell("ground truth", read_image(folder / "data" / "test" / name), "PSNR"),
            ]
        )
    return rows


if __name__ == "__main__":
    main()
