"""Prepare WR-SR: check the layout, write the manifest; images stay where they are.

Expected: INPUT/input/NNN.png, each with its reference INPUT/ref/NNN_ref.png; 80 pairs. Any image format is
taken.
"""

import argparse
from pathlib import Path

from rasr.data.arguments import run_script
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.preparation import sets
from rasr.preparation.jobs import RECORD, Job, map_jobs

PAIRS = 80


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    run_script(parser, lambda args: prepare(args.input, args.output, args.workers), __file__)


def prepare(source: Path, output: Path, workers: int = 0) -> list[Row]:
    """Write the manifest; return its rows."""
    problems = sets.Problems()
    images = sets.images_in(source / "input")
    if not images:
        raise RasrError(f"{source}: no image in input/; it must hold the folders input and ref")
    problems.expect("pairs", len(images), PAIRS)
    references = {path.stem.removesuffix("_ref"): path for path in sets.images_in(source / "ref")}

    jobs = [Job(path) for path in (*images, *references.values())]
    results = map_jobs(sets.crop_image, jobs, output / RECORD, workers=workers, description="images")
    usable = sets.usable_images(jobs, results, problems)
    rows = []
    for image in images:
        reference = references.get(image.stem)
        if reference not in usable:
            problems.add("references are missing", f"of {image.name}")
        elif image in usable:
            paths = (sets.relative_to_manifest(reference, output),)
            rows.append(Row(sets.relative_to_manifest(image, output), "test", references=paths))
    sets.write_set(output, rows, problems)
    return rows


if __name__ == "__main__":
    main()
