"""Prepare the photographs that `rasr-small` is trained on: check them, split them, write the manifest.

Expected: INPUT/general/* (photographs of anything) and INPUT/categories/<category>/* (two or more of each
category). The last two of every category, by name, are test images; all others train. They stay where they
are. Splits of the manifest: `general` and `category` to train on, `test`.
"""

import argparse
from pathlib import Path

from rasr.data.arguments import run_script, whole
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.preparation import sets
from rasr.preparation.jobs import RECORD, Job, map_jobs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--min-side", type=whole(1), default=192, help="least short side, pixels")
    run_script(parser, lambda args: prepare(args.input, args.output, args.min_side, args.workers), __file__)


def prepare(source: Path, output: Path, min_side: int = 192, workers: int = 0) -> list[Row]:
    """Write the manifest; return its rows."""
    problems = sets.Problems()
    owners = find_photographs(source)
    jobs = [Job(path, min_side=min_side) for path in owners]
    results = map_jobs(sets.crop_image, jobs, output / RECORD, workers=workers, description="photographs")
    usable = sets.usable_images(jobs, results, problems)
    rows = [
        Row(sets.relative_to_manifest(path, output), split, category, prompt=prompt_of(category))
        for path, (split, category) in owners.items()
        if path in usable
    ]
    sets.write_set(output, rows, problems)
    return rows


def find_photographs(source: Path) -> dict[Path, tuple[str, str]]:
    """Return (split, category) of every photograph."""
    folder = source / "categories"
    if not folder.is_dir():
        raise RasrError(f"{source}: no folder categories in it; it must hold general and categories/<name>")
    found = dict.fromkeys(sets.images_in(source / "general"), ("general", ""))
    for category, (training, test) in sets.split_categories(folder).items():
        found |= dict.fromkeys(training, ("category", category)) | dict.fromkeys(test, ("test", category))
    return found


def prompt_of(category: str) -> str:
    """Return the text of a photograph: "a photo of a basset hound" for the category `pet_basset_hound`."""
    words = category.removeprefix("pet_").replace("_", " ").lower()
    return f"a photo of a {words}" if words else ""


if __name__ == "__main__":
    main()
