"""Prepare RealPhoto60, or any folder of real photos without ground truth: check it, write the manifest.

Expected: 60 photos anywhere below INPUT. They stay where they are, as the manifest's column `lq`. Their
references come from an index of DIV2K (`python index.py database=DIV2K_train_HR index=...`).
"""

import argparse
from pathlib import Path

from rasr.data.arguments import run_script, whole
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.image_io import read_sidecar
from rasr.preparation import sets
from rasr.preparation.jobs import RECORD, Job, map_jobs

PHOTOS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=whole(1), default=PHOTOS, help="how many there should be")
    run_script(parser, lambda args: prepare(args.input, args.output, args.photos, args.workers), __file__)


def prepare(source: Path, output: Path, photos: int = PHOTOS, workers: int = 0) -> list[Row]:
    """Write the manifest; return its rows."""
    problems = sets.Problems()
    paths = sets.images_in(source)
    if not paths:
        raise RasrError(f"{source}: no image in it; give the folder of the photos")
    problems.expect("photos", len(paths), photos)
    jobs = [Job(path) for path in paths]
    results = map_jobs(sets.crop_image, jobs, output / RECORD, workers=workers, description="photos")
    usable = sets.usable_images(jobs, results, problems)
    rows = [
        Row("", "test", prompt=read_sidecar(path), lq=sets.relative_to_manifest(path, output))
        for path in usable
    ]
    sets.write_set(output, rows, problems)
    return rows


if __name__ == "__main__":
    main()
