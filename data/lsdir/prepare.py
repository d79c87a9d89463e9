"""Prepare LSDIR: check every image, write the manifest; optionally cut the images down for speed.

Expected: any folders of the 84,991 training images below INPUT, as the official archives unpack
(0001000/0000001.png, ...). The reference of an image is another crop of the image itself, hence the manifest
names none: train with `two_crops: true`, as `data=lsdir` does. Without --crop the images are listed where
they lie and nothing is copied.
"""

import argparse
from pathlib import Path

from rasr.data.arguments import run_script, whole
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.preparation import sets
from rasr.preparation.jobs import RECORD, Job, map_jobs, remove_stale

EXPECTED = 84_991


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--crop", type=whole(1), help="cut sides to this length, pixels, to decode less later"
    )
    parser.add_argument("--min-side", type=whole(1), default=512, help="smaller images are left out, pixels")
    run_script(
        parser,
        lambda args: prepare(args.input, args.output, args.crop, args.min_side, args.workers),
        __file__,
    )


def prepare(
    source: Path, output: Path, crop: int | None = None, min_side: int = 512, workers: int = 0
) -> list[Row]:
    """Write the manifest, and the crops if asked for; return the manifest's rows."""
    problems = sets.Problems()
    paths = sets.images_in(source)
    if not paths:
        raise RasrError(f"{source}: no image in it; unpack the archives of LSDIR there")
    problems.expect("images", len(paths), EXPECTED)
    jobs = []
    for path in paths:
        target = sets.target_of(output / "train", path.relative_to(source)) if crop else None
        jobs.append(Job(path, target, crop, min_side))
    results = map_jobs(sets.crop_image, jobs, output / RECORD, workers=workers, description="images")
    usable = sets.usable_images(jobs, results, problems)
    remove_stale(output, usable.values())
    rows = [Row(sets.relative_to_manifest(file, output), "train") for file in usable.values()]
    sets.write_set(output, rows, problems)
    return rows


if __name__ == "__main__":
    main()
