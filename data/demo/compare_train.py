"""Last step of `make demo-train`: comparison picture and figures of the training and of what it restores.

Reads the runs of train.py and infer.py in the folder, outputs/demo_train, and their figures in metrics/
(evaluate.py); writes panel.png and metrics.json there.
"""

import argparse
import csv
import json
import logging
from collections import Counter
from pathlib import Path

from rasr.drawing import PanelCell, draw_panel
from rasr.image_io import list_images, read_image

log = logging.getLogger("compare_train")

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
    parser.add_argument(
        "--folder", type=Path, default=Path("outputs/demo_train"), help="folder of the results"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("outputs/demo/data"), help="folder of prepare_train.py"
    )
    args = parser.parse_args()
    write_summary(args.folder, args.data)


def write_summary(folder: Path, data: Path) -> None:
    """Writes `panel.png` and `metrics.json`; the last line it prints is the path of the picture.

    Args:
        folder: results of train.py, infer.py and evaluate.py.
        data: what prepare_train.py wrote.
    """
    scores = {name: json.loads((folder / "metrics" / name / "metrics.json").read_text()) for name in METHODS}
    lines = (folder / "with" / "results.jsonl").read_text().splitlines()
    records = {
        Path(record["output"]).relative_to(folder / "with"): record for record in map(json.loads, lines)
    }
    summary = {
        "methods": {name: scores[name]["mean"] for name in METHODS},
        "images": len(records),
        "retrieval": retrieval_accuracy(data, records),
        "seconds_per_image": {name: mean_seconds(folder / name) for name in ("without", "with")},
        "training_loss": {run: mean_ends(logged(folder / run, "train/loss_total")) for run in RUNS},
        "validation_psnr": {run: logged(folder / run, "val/psnr") for run in RUNS},
    }
    (folder / "metrics.json").write_text(json.dumps(summary, indent=2) + "\n")
    draw_panel(panel_rows(folder, data, records, scores), folder / "panel.png", cell_size=192)

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
            restored = folder / ("metrics/bicubic/sr" if method == "bicubic" else method)
            return PanelCell(label, read_image(restored / name), f"{psnr:.2f} dB")

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
