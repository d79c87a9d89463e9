"""Prepare CUFED5: check the layout, write the manifest; images stay where they are.

Expected: INPUT/NNN_0.png with the references NNN_1.png .. NNN_5.png, of falling similarity; 126 scenes, from
000 to 125. Any image format is taken.
"""

import argparse
import re
from collections import defaultdict
from pathlib import Path

from rasr.data.arguments import run_script
from rasr.data.manifest import Row
from rasr.errors import RasrError
from rasr.preparation import sets
from rasr.preparation.jobs import RECORD, Job, map_jobs

SCENES = 126
REFERENCES = 5
NAME = re.compile(r"(\d+)_(\d)")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    run_script(parser, lambda args: prepare(args.input, args.output, args.workers), __file__)


def prepare(source: Path, output: Path, workers: int = 0) -> list[Row]:
    """Write the manifest; return its rows."""
    problems = sets.Problems()
    scenes: dict[str, dict[int, Path]] = defaultdict(dict)
    for path in sets.images_in(source):
        if match := NAME.fullmatch(path.stem):
            scenes[match[1]][int(match[2])] = path
    if not scenes:
        raise RasrError(f"{source}: no image named like 000_0.png; give the folder CUFED5 itself")
    problems.expect("scenes", len(scenes), SCENES)

    jobs = [Job(path) for scene in scenes.values() for path in scene.values()]
    results = map_jobs(sets.crop_image, jobs, output / RECORD, workers=workers, description="images")
    usable = sets.usable_images(jobs, results, problems)
    rows = []
    for name, scene in sorted(scenes.items()):
        absent = [f"{name}_{level}" for level in range(REFERENCES + 1) if scene.get(level) not in usable]
        for missing in absent:
            problems.add("images of a scene are missing", missing)
        references = [scene[level] for level in sorted(scene) if level and scene[level] in usable]
        if scene.get(0) in usable and references:
            paths = tuple(sets.relative_to_manifest(path, output) for path in references)
            rows.append(Row(sets.relative_to_manifest(scene[0], output), "test", references=paths))
    sets.write_set(output, rows, problems)
    return rows


if __name__ == "__main__":
    main()
