"""Make a data set like RASR-Flickr30 out of any collection with one folder per category.

    python data/rasr_custom/prepare.py --input photos --output data/rasr_custom/images

1. Measure: every photograph is decoded once; what cannot be read is reported.
2. Quality: photographs with a side below --crop, or without a sharp part, are left out.
3. Near-duplicates: of photographs that show the same picture (resaved, resized, slightly cropped, mirrored),
   in any category, only the largest stays, so that no test image has its twin in the database.
4. Split: per category 40 for training, 5 for testing, the rest for reference; too small categories are out.
5. Crops: large photographs are shrunk to --short-side, then cut to --crop; training and reference as in the
   paper, test images too.

Written below --output: train/, test/, reference/ (each with a folder per category), manifest.csv,
problems.csv, photos.csv (what became of every photograph) and report.html to look at. Originals stay as they
are, and a second run does only what is missing. Crops that an earlier run wrote and this one does not are
removed; files of anybody else stay.
"""

import argparse
import csv
import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from rasr.data.arguments import number, run_script, whole
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.image_io import atomic_path, read_sidecar
from rasr.preparation.curation import Measured, close_pairs, group_duplicates, measure_image, split_category
from rasr.preparation.curation_report import ReportPage
from rasr.preparation.jobs import RECORD, Job, map_jobs, remove_stale
from rasr.preparation.sets import Problems, crop_image, images_in, relative_to_manifest, target_of, write_set

log = logging.getLogger("prepare")

SPLITS = ("train", "test", "reference")
SHOWN_GROUPS, SHOWN_PHOTOS = 40, 24
SUSPICIOUS_BITS = 24  # beyond --max-distance: shown side by side in the report, kept


@dataclass
class Choice:
    """What became of the collection."""

    photos: list[Measured] = field(default_factory=list)
    fates: dict[str, str] = field(default_factory=dict)
    """Name of a photograph: train, test, reference, or why it was left out."""
    duplicates: list[list[Measured]] = field(default_factory=list)

    def of(self, fate: str) -> list[Measured]:
        return [photo for photo in self.photos if self.fates[photo.name] == fate]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crop", type=whole(1), default=768, help="side of the crops, pixels")
    parser.add_argument(
        "--short-side", type=whole(1), default=1024, help="larger photographs are shrunk to this, pixels"
    )
    parser.add_argument(
        "--min-sharpness", type=number(0), default=12.0, help="of the sharpest parts, see the report"
    )
    parser.add_argument(
        "--max-distance", type=whole(0, 255), default=64, help="of 256 bits, between hashes of one picture"
    )
    parser.add_argument("--train", type=whole(1), default=40, help="training images per category")
    parser.add_argument("--test", type=whole(0), default=5, help="test images per category")
    parser.add_argument(
        "--min-reference", type=whole(0), default=10, help="least reference images per category"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the split")
    run_script(parser, prepare, __file__)


def prepare(args: argparse.Namespace) -> list[Row]:
    """Choose, cut and report; return the manifest's rows."""
    if args.short_side < args.crop:
        raise RasrError(
            f"--short-side {args.short_side} is less than --crop {args.crop}; give at least as much"
        )
    problems = Problems()
    choice = choose(args, problems)
    kept = {photo.name for split in SPLITS for photo in choice.of(split)}
    jobs = [
        Job(
            args.input / photo.name,
            target_of(args.output / choice.fates[photo.name], photo.name),
            args.crop,
            min_side=args.crop,
            short_side=args.short_side,
        )
        for photo in choice.photos
        if photo.name in kept
    ]
    # Stale crops first: an interrupted run must not leave an image in the split that it has left.
    stale = remove_stale(args.output, [job.target for job in jobs])
    if stale:
        log.info("%d crops of an earlier run removed", stale)
    map_jobs(crop_image, jobs, args.output / RECORD, workers=args.workers, description="cropping")

    rows = [
        Row(
            relative_to_manifest(target_of(args.output / split, photo.name), args.output),
            split,
            photo.category,
            read_sidecar(args.input / photo.name),
        )
        for split in ("train", "test")
        for photo in choice.of(split)
    ]
    manifest = write_set(args.output, rows, problems)
    write_photos(choice, args.output / "photos.csv")
    write_report(choice, args, problems, args.output / "report.html")
    log.info("report: %s", args.output / "report.html")
    log.info("%d reference images; the best five of each training image:", len(choice.of("reference")))
    log.info("python index.py database=%s index=... assign=%s", args.output / "reference", manifest)
    return rows


def choose(args: argparse.Namespace, problems: Problems) -> Choice:
    """Decide about every photograph."""
    paths = [path for path in images_in(args.input) if len(path.relative_to(args.input).parts) > 1]
    if not paths:
        raise RasrError(f"{args.input}: no images in its folders; it must hold one folder per category")
    jobs = [Job(path) for path in paths]
    results = map_jobs(
        measure_image, jobs, args.output / RECORD, workers=args.workers, description="measuring"
    )
    choice = Choice()
    usable = []
    for path, result in zip(paths, results, strict=True):
        name = path.relative_to(args.input)
        if "fault" in result:
            problems.add("unreadable", f"{path} ({result['fault']})")
            continue
        photo = Measured(name.as_posix(), name.parts[0], **result)
        choice.photos.append(photo)
        if min(photo.width, photo.height) < args.crop:
            choice.fates[photo.name] = "too small"
        elif photo.sharpness < args.min_sharpness:
            choice.fates[photo.name] = "blurred"
        else:
            usable.append(photo)

    choice.duplicates = group_duplicates(usable, args.max_distance)
    twins = {photo.name for group in choice.duplicates for photo in group[1:]}
    choice.fates |= dict.fromkeys(twins, "duplicate")
    for category in sorted({photo.category for photo in choice.photos}):
        members = [photo for photo in usable if photo.category == category and photo.name not in twins]
        parts = split_category(
            members, args.seed, train=args.train, test=args.test, min_reference=args.min_reference
        )
        if parts is None:
            problems.add("categories are too small", f"{category} ({len(members)} usable)")
            parts = {"category too small": members}
        choice.fates |= {photo.name: fate for fate, part in parts.items() for photo in part}
    for fate in ("too small", "blurred", "duplicate"):
        for photo in choice.of(fate):
            problems.add(fate, photo.name)
    return choice


def write_photos(choice: Choice, path: Path) -> None:
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("photo", "category", "width", "height", "sharpness", "fate"))
        for photo in choice.photos:
            numbers = (photo.width, photo.height, photo.sharpness)
            writer.writerow((photo.name, photo.category, *numbers, choice.fates[photo.name]))


def write_report(choice: Choice, args: argparse.Namespace, problems: Problems, path: Path) -> None:
    """Write the page: counts, the three splits, and what was left out with the reason."""
    page = ReportPage(f"Data set made of {args.input.name}")
    fates = (*SPLITS, "too small", "blurred", "duplicate", "category too small")
    counts = Counter((photo.category, choice.fates[photo.name]) for photo in choice.photos)
    categories = sorted({photo.category for photo in choice.photos})
    lines = [(category, *(counts[category, fate] for fate in fates)) for category in categories]
    totals = Counter(choice.fates.values())
    page.table(("category", *fates), [*lines, ("all", *(totals[fate] for fate in fates))])

    unreadable = problems.cases.get("unreadable", [])
    page.text(
        f"{len(unreadable)} more could not be read{': ' if unreadable else ''}{'; '.join(unreadable[:5])}"
    )

    page.heading("Closest pairs between test and the other splits")
    page.text(
        f"Up to {args.max_distance} of 256 bits apart is a duplicate; these are just beyond. If two show the "
        "same picture, raise --max-distance."
    )
    pairs = suspicious_pairs(choice, args.max_distance)
    if not pairs:
        page.text("None is near.")
    for left, right, bits in pairs:
        page.strip([(args.input / photo.name, f"{photo.name}, {bits} bits") for photo in (left, right)])
    page.heading(f"Groups of near-duplicates: {len(choice.duplicates)}")
    page.text("The first of each group stays.")
    for group in choice.duplicates[:SHOWN_GROUPS]:
        page.strip(
            [(args.input / photo.name, f"{photo.name} ({photo.width}x{photo.height})") for photo in group]
        )
    page.heading("Sharpness around the limit")
    page.text(
        f"The sharpest that were left out, then the least sharp that stay; the limit is {args.min_sharpness}."
    )
    blurred = sorted(choice.of("blurred"), key=lambda photo: -photo.sharpness)
    kept = sorted(
        (photo for split in SPLITS for photo in choice.of(split)), key=lambda photo: photo.sharpness
    )
    for part in (blurred[:SHOWN_PHOTOS], kept[:SHOWN_PHOTOS]):
        page.strip([(args.input / photo.name, f"{photo.sharpness:.1f} {photo.name}") for photo in part])
    for split in SPLITS:
        page.heading(f"{split}: {len(choice.of(split))}")
        page.strip(
            (target_of(args.output / split, photo.name), photo.category)
            for category in categories
            for photo in [photo for photo in choice.of(split) if photo.category == category][:4]
        )
    page.write(path)


def suspicious_pairs(choice: Choice, max_distance: int) -> list[tuple[Measured, Measured, int]]:
    """Return the closest pairs of a test image and one of another split, closest first."""
    tests, others = choice.of("test"), [*choice.of("train"), *choice.of("reference")]
    pairs = close_pairs(tests, others, max_distance + SUSPICIOUS_BITS)
    closest = sorted(pairs, key=lambda pair: pair[2])[:SHOWN_PHOTOS]
    return [(tests[left], others[right], bits) for left, right, bits in closest]


if __name__ == "__main__":
    main()
