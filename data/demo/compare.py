"""Last step of the demo: bicubic baseline, comparison picture and figures from what the other steps wrote.

    python data/demo/compare.py bicubic    enlarges the LR images
    python data/demo/compare.py summary    writes panel.png and metrics.json, prints the figures

Both work on the folder outputs/demo with the crops in outputs/demo/data (others with --folder and --data).
With --trained the summary also tells of the training that `make demo-train` did in that folder.
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
    "without": "restored without reference",
    "with": "restored with reference",
}
UNTRAINED = {"untrained": "backbone before training"}
RUNS = ("backbone", "rasr")
PANEL_ROWS = 8


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=["bicubic", "summary"])
    parser.add_argument("--folder", type=Path, default=Path("outputs/demo"), help="folder of the results")
    parser.add_argument("--data", type=Path, default=Path("outputs/demo/data"), help="folder of prepare.py")
    parser.add_argument("--trained", action="store_true", help="summary: of the training, too")
    args = parser.parse_args()
    if args.step == "bicubic":
        write_bicubic(args.folder, args.data)
    else:
        write_summary(args.folder, args.data, trained=args.trained)


def write_bicubic(folder: Path, data: Path) -> None:
    """Enlarges every LR image x4 as anybody would."""
    root = data / "lr"
    for path in list_images(root):
        lq = read_image(path)
        size = (4 * lq.shape[1], 4 * lq.shape[2])
        write_png(resize_bicubic(lq[None], size)[0], folder / "bicubic" / path.relative_to(root))


def write_summary(folder: Path, data: Path, *, trained: bool = False) -> None:
    """Writes `panel.png` and `metrics.json`; the last line it prints is the path of the picture.

    Args:
        folder: results of infer.py and evaluate.py.
        data: what prepare.py wrote.
        trained: the folder holds training runs and the backbone before training, too.
    """
    methods = METHODS | (UNTRAINED if trained else {})
    scores = {name: json.loads((folder / f"metrics_{name}" / "metrics.json").read_text()) for name in methods}
    lines = (folder / "with" / "results.jsonl").read_text().splitlines()
    records = {
        Path(record["output"]).relative_to(folder / "with"): record for record in map(json.loads, lines)
    }
    summary = {
        "methods": {name: scores[name]["mean"] for name in methods},
        "images": len(records),
        "retrieval": retrieval_accuracy(data, records),
        "seconds_per_image": {name: mean_seconds(folder / name) for name in ("without", "with")},
    }
    if trained:
        summary["training_loss"] = {run: mean_ends(logged(folder / run, "train/loss_total")) for run in RUNS}
        summary["validation_psnr"] = {run: logged(folder / run, "val/psnr") for run in RUNS}
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw_panel(panel_rows(folder, data, records, scores), folder / "panel.png", cell_size=192)

    for name, label in methods.items():
        mean = summary["methods"][name]
        log.info("%-28s PSNR %6.2f dB   SSIM %.4f", label, mean["psnr"], mean["ssim"])
    retrieval = summary["retrieval"]
    log.info(
        "retrieval: top-1 category %.0f %%, chance %.0f %%",
        100 * retrieval["top1"],
        100 * retrieval["chance"],
    )
    for run in RUNS if trained else ():
        psnr = summary["validation_psnr"][run]
        losses = summary["training_loss"][run]
        log.info("training of %-9s loss %.4f -> %.4f", run + ":", *losses)
        log.info("   on its validation crops, PSNR %.4f -> %.4f dB", psnr[0], psnr[-1])
    log.info("figures: %s", folder / "metrics.json")
    log.info("picture: %s", folder / "panel.png")


def retrieval_accuracy(data: Path, records: dict[Path, dict]) -> dict[str, float]:
    """How often the reference is of the query's category, and how often a random one would be."""
    database = data / "database"
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


def panel_rows(
    folder: Path, data: Path, records: dict[Path, dict], scores: dict[str, dict]
) -> list[list[PanelCell]]:
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
                PanelCell("LR", read_image(data / "lr" / name), name.with_suffix("").as_posix()),
                cell("bicubic", "bicubic"),
                cell("without reference", "without"),
                cell("with reference", "with"),
                PanelCell(
                    "the reference",
                    read_image(data / "database" / record["reference"]),
                    f"cosine {record['score']:.3f}",
                ),
                PanelCell("ground truth", read_image(data / "test" / name), "PSNR"),
            ]
        )
    return rows


if __name__ == "__main__":
    main()
