"""How well a net restores, with and without references: fixed degraded sets, metrics, targets, contact sheet.

Everything is kept under `--output`: the sets, the restorations by net and settings, the figures by content.
The same command again goes on where it stopped, and another net is measured on the same sets. Figures are
those of the saved 8-bit files; FSIM, GMSD, VIF and NIQE want `pip install -e '.[eval]'`.

Below `--photos`, each as far as it is there: `photos/Set14/HR/`, `photos/bsds500/val/` (which is BSD100),
`photos/urban100_crop512/` (512x512 centre crops of Urban100), `categories/<category>/` (the last two by name
are tested on, the others are the database) and `refsr/sceaux_sets/` (of openMVG/ImageDataset_SceauxCastle:
320x320 crops of facades `NNN_0.png`, the same facade from elsewhere `NNN_1.jpg`, and `pairs.csv`,
which lists them).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import OmegaConf
from tqdm import tqdm

from benchmarks.common import describe_machine
from benchmarks.quality_report import (
    Reports,
    check_targets,
    compare_references,
    comparison_table,
    set_table,
    speed_table,
    targets_table,
)
from benchmarks.quality_sets import QUICK_METRICS, SET_KEYS, QualitySet, find_sets, make_set
from benchmarks.quality_sheet import choose_images, draw_sheet
from benchmarks.quality_speed import measure_speed
from rasr import __version__
from rasr.config.options import read_options
from rasr.data.arguments import parse, whole
from rasr.errors import RasrError
from rasr.evaluation import BicubicBaseline, evaluate_folders, write_json
from rasr.evaluation.report import write_text
from rasr.image_io import content_hash, list_images, read_image, write_png
from rasr.inference import Restorer
from rasr.inference.color_fix import COLOR_FIXES
from rasr.models import load_rasr_net
from rasr.preparation.sets import split_categories
from rasr.retrieval import (
    Always,
    DatabaseImage,
    Query,
    RandomReference,
    ReferenceIndex,
    Retriever,
    build_index,
)
from rasr.retrieval.encoders.base import digest

ENCODERS = read_options(Path(__file__).resolve().parents[1] / "conf" / "options" / "encoder.yaml")

References = dict[tuple[str, str], dict[str, Path]]
"""{(set, method): {name: file}}"""


def main() -> None:
    args = parse_arguments()
    net = load_rasr_net(args.weights).eval()
    restorer = Restorer(
        net, conditioning_scale=args.conditioning_scale, color_fix=args.color_fix, device=args.device
    )
    args.color_fix = restorer.color_fix.__name__  # for the record
    sets, absent = find_sets(args.photos, args.limit)
    sets_folder = args.output / "sets"
    make = partial(make_set, preset=args.preset, seed=args.seed)
    sets = [one for one in sets if one.key in args.sets]
    if not sets:
        raise RasrError(f"--sets {' '.join(args.sets)}: none of these is below {args.photos}; choose others")
    made = [make(one, sets_folder / one.key) for one in sets]
    for before, after in zip(sets, made, strict=True):
        if len(after.cases) < len(before.cases):
            count = len(before.cases) - len(after.cases)
            absent.append(f"{after.title}: {count} of {len(before.cases)} photos, too small")
    sets = made
    if args.sheet is not None and not choose_images(sets):
        raise RasrError("--sheet draws from halves and categories; add one of them to --sets")
    references: References = {}
    if net.fusion is None:
        absent.append("references: this net has no reference branch")
    else:
        references = find_references(sets, sets_folder, args, absent)

    name = Path(args.weights).resolve().stem
    settings = [__version__, str(restorer.conditioning_scale), args.color_fix]
    folder = args.output / f"{name}-{digest(net, *settings)}"
    speed = {} if args.no_speed else measure_speed(args.weights)
    reports: Reports = {}
    for one in sets:
        reports[one.key] = measure_set(one, restorer, references, args.output, folder)
    write_results(args, folder, sets, reports, speed, absent)
    if args.sheet is not None:
        draw_sheet(sets, reports, references, sets_folder, args.sheet)
        print(f"contact sheet: {args.sheet}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True, help="folder with photos/, categories/, refsr/")
    parser.add_argument("--weights", required=True, help="what load_rasr_net takes")
    parser.add_argument("--output", type=Path, required=True, help="folder for everything that is made")
    parser.add_argument("--preset", default="realesrgan", help="degradation: realesrgan, osediff or bicubic")
    parser.add_argument("--seed", type=int, default=0, help="of the degradation and of the random references")
    parser.add_argument("--limit", type=whole(1), help="images per set, for a quick look")
    parser.add_argument("--sets", nargs="+", choices=SET_KEYS, default=SET_KEYS, help="the sets to measure")
    known = sorted(ENCODERS)
    parser.add_argument("--encoder", default="color_gradient", choices=known, help="of the retrieval")
    parser.add_argument("--conditioning-scale", type=float, default=0.5, help="strength of the reference")
    parser.add_argument("--color-fix", choices=[*COLOR_FIXES], help="default: the net's own")
    parser.add_argument("--device", default="cpu", help="of all but the seconds, which are a CPU's")
    parser.add_argument("--sheet", type=Path, help="also draw the contact sheet: a JPEG file")
    parser.add_argument("--no-speed", action="store_true", help="leave out seconds and memory")
    args = parse(parser)
    if args.sheet is not None and args.sheet.suffix.lower() not in (".jpg", ".jpeg"):
        raise RasrError(f"--sheet {args.sheet} is no JPEG; give a name that ends in .jpg")
    return args


def find_references(
    sets: list[QualitySet], sets_folder: Path, args: argparse.Namespace, absent: list[str]
) -> References:
    """The references of every set: its own, a random one and the retrieved one of the category database."""
    found: References = {}
    for one in sets:
        if one.reference is not None:
            folder = sets_folder / one.key / "ref"
            found[one.key, one.reference] = {case.name: folder / f"{case.name}.png" for case in one.cases}
    if not (args.photos / "categories").is_dir():
        absent.append(f"random and retrieved references: no folder {args.photos / 'categories'}")
        return found
    policies = {"random": RandomReference(seed=args.seed), "retrieved": Always()}
    with open_database(args.photos / "categories", args.output, args.encoder) as retriever:
        for one in sets:
            if one.key == "halves":  # whole photographs show it as well
                continue
            for method, policy in policies.items():
                files = {case.name: sets_folder / one.key / "lq" / f"{case.name}.png" for case in one.cases}
                queries = {name: Query(read_image(file), file) for name, file in files.items()}
                hits = {name: policy.choose(query, retriever)[0] for name, query in queries.items()}
                found[one.key, method] = {name: hit.path for name, hit in hits.items()}
    return found


@contextmanager
def open_database(categories: Path, output: Path, encoder_name: str) -> Iterator[Retriever]:
    """An index over the database part of the categories."""
    encoder = instantiate(OmegaConf.create(ENCODERS[encoder_name]))
    database = [
        DatabaseImage(path.relative_to(categories).as_posix(), path, category)
        for category, (photos, _) in split_categories(categories).items()
        for path in photos
    ]
    location = output / f"index-{encoder_name}"
    build_index(database, location, encoder, engine="flat")
    with ReferenceIndex.open(location) as index:
        yield Retriever(index, encoder)


def measure_set(
    one: QualitySet, restorer: Restorer, references: References, output: Path, folder: Path
) -> dict[str, dict]:
    """Restore a set by every method, and measure: {method: report}."""
    data = output / "sets" / one.key
    bicubic = output / "bicubic" / one.key
    folders = {"bicubic": BicubicBaseline().restore_folder(data / "lq", bicubic, restorer.device)}
    methods: dict[str, dict[str, Path] | None] = {"without": None}
    methods |= {method: files for (key, method), files in references.items() if key == one.key}
    for method, files in methods.items():
        folders[method] = restore_folder(restorer, data / "lq", folder / one.key / method, files)
    return {
        method: evaluate_folders(
            restored,
            data / "gt",
            metrics=QUICK_METRICS if method in ("random", "retrieved") else one.metrics,
            device=restorer.device,
            store=output / "scores.jsonl",
        )
        for method, restored in folders.items()
    }


def restore_folder(restorer: Restorer, lq: Path, output: Path, references: dict[str, Path] | None) -> Path:
    """Restore every image that is not there yet.

    Returns:
        The folder: `output`, with a mark of the references, as another encoder or database finds others.
    """
    files = list_images(lq)
    if references is not None:
        mark = digest(*(content_hash(references[path.stem]) for path in files))
        output = output.with_name(f"{output.name}-{mark}")
    for path in tqdm(files, desc=f"{output.parent.name} {output.name}", unit="image"):
        target = output / path.name
        if not target.is_file():
            ref = None if references is None else read_image(references[path.stem])
            write_png(restorer.restore(read_image(path), ref), target)
    return output


def write_results(
    args: argparse.Namespace,
    folder: Path,
    sets: list[QualitySet],
    reports: Reports,
    speed: dict[str, float],
    absent: list[str],
) -> None:
    """Write `quality.md` and `quality.json`, and print the first."""
    machine = describe_machine(args.device, ("diffusers", "peft"))
    entries = compare_references(sets, reports)
    targets = check_targets(reports, entries, speed)
    first = next(iter(reports.values()))["bicubic"]
    versions = ", ".join(f"{name} {found or 'absent'}" for name, found in first["versions"].items())
    unavailable = {k: why for each in reports.values() for k, why in each["bicubic"]["unavailable"].items()}
    absent = [*absent, *(f"{name}: {why}" for name, why in unavailable.items())]
    blocks = [
        f"{machine}\n{versions}; degradation {args.preset}, seed {args.seed}",
        *(set_table(one, reports[one.key]) for one in sets),
        "In brackets: minus bicubic. PSNR and SSIM on Y; FSIM with chroma, GMSD and VIF as pyiqa has them.",
        "With a reference minus without, paired by image, 95 % bootstrap intervals:",
        comparison_table(entries) if entries else "none: no references",
        speed_table(speed) if speed else "Seconds and memory were left out (--no-speed).",
        targets_table(targets),
        *(f"Absent: {line}" for line in absent),
    ]
    text = "\n\n".join(blocks) + "\n"
    write_text(text, folder / "quality.md")
    record = {
        "machine": machine,
        "versions": first["versions"],
        "arguments": {key: str(value) for key, value in vars(args).items()},
        "speed": speed,
        "targets": [asdict(target) for target in targets],
        "comparisons": entries,
        "absent": absent,
        "reports": reports,
    }
    write_json(record, folder / "quality.json")
    print(f"{text}\nwritten to {folder}")


if __name__ == "__main__":
    try:
        main()
    except RasrError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
