"""Prepare LSDIR: check every image, write the manifest; optionally cut the images down for speed.

Expected: any folders of the 84,991 training images below INPUT, as the official archives unpack
(0001000/0000001.png, ...). The reference of an image is another crop of the image itself, hence the manifest
names none: train with `two_crops: true`, as `data=lsdir` does. Without --crop the images are listed where
they lie and nothing is copied.
"""

import argparse
from pathlib import Path

from rasr.data.manifest import Row
from rasr.data.preparation import (
    RECORD,
    Job,
    Problems,
    crop_image,
    images_in,
    map_jobs,
    relative_to_manifest,
    remove_stale,
    run_script,
    usable_images,
    write_set,
)
from rasr.errors import RasrError

EXPECTED = 84_991


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crop", type=int, help="cut sides to this length, pixels, to decode less later")
    parser.add_argument("--min-side", type=int, default=512, help="smaller images are left out, pixels")
    run_script(
        parser,
        lambda args: prepare(args.input, args.output, args.crop, args.min_side, args.workers),
        __file__,
    )


def prepare(
    source: Path, output: Path, crop: int | None = None, min_side: int = 512, workers: int = 0
) -> list[Row]:
    """Write the manifest, and the crops if asked for; return the manifest's rows."""
    problems = Problems()
    paths = images_in(source)
    if not paths:
        raise RasrError(f"{source}: no image in it; unpack the archives of LSDIR there")
    if len(paths) < EXPECTED:
        problems.add("images are missing", f"{EXPECTED - len(paths):,} of {EXPECTED:,}")
    jobs = []
    for path in paths:
        target = output / "train" / path.relative_to(source).with_suffix(".png") if crop else None
        jobs.append(Job(path, target, crop, min_side))
    results = map_jobs(crop_image, jobs, output / RECORD, workers=workers, description="images")
    usable = usable_images(jobs, results, problems)
    remove_stale(output, ("train",), set(usable.values()))
    rows = [Row(relative_to_manifest(file, output), "train") for file in usable.values()]
    write_set(output, rows, problems)
    return rows


if __name__ == "__main__":
    main()
