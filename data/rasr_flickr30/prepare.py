"""Prepare RASR-Flickr30: check the layout, cut 768x768 crops, write the manifest.

Expected: INPUT/<category>/{train,test,reference}/ with 30 categories of 40 training, 5 test and about 100
reference images. Training and reference images are cut to their centre; test images stay whole and where
they are. The manifest names no references yet; the last line of output says how to assign them.
"""

import argparse
import logging
from pathlib import Path

from rasr.data.arguments import run_script, whole
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.preparation import sets
from rasr.preparation.jobs import RECORD, Job, map_jobs, remove_stale

log = logging.getLogger("prepare")

CATEGORIES = 30
EXPECTED = {"train": 40, "test": 5, "reference": 100}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crop", type=whole(1), default=768, help="side of the crops, pixels")
    run_script(parser, lambda args: prepare(args.input, args.output, args.crop, args.workers), __file__)


def prepare(source: Path, output: Path, crop: int = 768, workers: int = 0) -> list[Row]:
    """Write crops and manifest; return the manifest's rows. Reference crops lie in `output/reference`."""
    problems = sets.Problems()
    jobs, owners = [], []
    for category, split, path in find_images(source, problems):
        relative = path.relative_to(source / category / split)
        cut = Job(path, sets.target_of(output / split / category, relative), crop, min_side=crop)
        jobs.append(Job(path) if split == "test" else cut)
        owners.append((category, split))
    results = map_jobs(sets.crop_image, jobs, output / RECORD, workers=workers, description="images")
    usable = sets.usable_images(jobs, results, problems)
    rows = [
        Row(sets.relative_to_manifest(usable[job.source], output), split, category)
        for job, (category, split) in zip(jobs, owners, strict=True)
        if job.source in usable and split != "reference"
    ]
    remove_stale(output, usable.values())
    manifest = sets.write_set(output, rows, problems)
    references = sum(
        owner[1] == "reference" and job.source in usable for job, owner in zip(jobs, owners, strict=True)
    )
    log.info("%d reference images; the best five of each training image:", references)
    log.info("python index.py database=%s index=... assign=%s", output / "reference", manifest)
    return rows


def find_images(source: Path, problems: sets.Problems) -> list[tuple[str, str, Path]]:
    """Return (category, split, path) of every image, and note what the layout lacks."""
    categories = [path.name for path in sorted(source.iterdir()) if path.is_dir() and path.name[0] != "."]
    if not any((source / name / "train").is_dir() for name in categories):
        raise RasrError(f"{source}: no folder <category>/train in it; it must hold one folder per category")
    problems.expect("categories", len(categories), CATEGORIES)
    found = []
    for category in categories:
        for split, expected in EXPECTED.items():
            paths = sets.images_in(source / category / split)
            if len(paths) < expected:
                problems.add(
                    f"categories have fewer than {expected} {split} images", f"{category} ({len(paths)})"
                )
            found += [(category, split, path) for path in paths]
    return found


if __name__ == "__main__":
    main()
