"""A fixed low-quality test set, made of photographs, with a record of what happened to each."""

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rasr.degradation import Degradation
from rasr.errors import RasrError
from rasr.image_io import ImageReadError, atomic_path, content_hash, list_images, read_image, write_png
from rasr.seeding import sample_seed

RECORD = "parameters.jsonl"
KINDS = ("gt", "lq")  # folders of the results

logger = logging.getLogger(__name__)


def make_test_set(
    source: str | Path,
    output: str | Path,
    degradation: Degradation,
    *,
    seed: int,
    gt_size: int | None = None,
) -> tuple[int, list[str]]:
    """Degrade every image of a folder, on the CPU, each by a seed made of `seed` and its path in the folder.

    What an earlier run with the same settings left complete is kept.

    Args:
        source: an image file, or a folder of images.
        output: gets `gt/`, `lq/` and `parameters.jsonl`: one line per image with its seed and parameters.
        degradation: what happens to the images.
        seed: of the whole set.
        gt_size: side of the square cut from each image's centre; None cuts off only what the scale does
            not divide.

    Returns:
        How many images the set has, and a line for each that could not be used.
    """
    source, output = Path(source), Path(output)
    targets = _plan(source, output)
    settings = {"seed": seed, "preset": degradation.preset, "scale": degradation.scale, "gt_size": gt_size}
    known = _read_record(output / RECORD)
    _refuse_other_settings(known, settings, degradation, output)
    _write_record(known, output)

    made, bad = {}, []
    with (output / RECORD).open("a", encoding="utf-8") as record:
        for path, target in tqdm(targets, desc="degrading", unit="image"):
            try:
                entry = _describe(path, _below(path, source), target, settings, degradation)
                is_made = known.get(entry["image"]) == entry and all(map(Path.is_file, _files(entry, output)))
                if not is_made:
                    _degrade(path, entry, output, degradation)
                    record.write(json.dumps(entry) + "\n")
                    record.flush()
            except ImageReadError as error:
                bad.append(str(error))
                logger.warning("%s", error)
            else:
                made[entry["image"]] = entry
    _write_record(made, output)
    kept = {file for entry in made.values() for file in _files(entry, output)}
    for entry in known.values():  # results of what is no longer in the source
        for file in set(_files(entry, output)) - kept:
            file.unlink(missing_ok=True)
    return len(made), bad


def _describe(
    path: Path, image: str, target: str, settings: dict[str, Any], degradation: Degradation
) -> dict[str, Any]:
    """Make the image's line of the record; nothing is degraded yet."""
    image_seed = sample_seed(settings["seed"], image)
    parameters = degradation.parameters_of(image_seed)
    return {
        "image": image,
        "lq": f"lq/{target}",
        "gt": f"gt/{target}",
        "sha256": content_hash(path),
        **settings,
        "image_seed": image_seed,
        "parameters": None if parameters is None else asdict(parameters),
    }


def _degrade(path: Path, entry: dict[str, Any], output: Path, degradation: Degradation) -> None:
    gt = _cut(read_image(path), entry["gt_size"], degradation.scale, path)
    lq = degradation(gt[None], seeds=torch.tensor([entry["image_seed"]]))[0]
    write_png(gt, output / entry["gt"])
    write_png(lq, output / entry["lq"])


def _cut(image: Tensor, gt_size: int | None, scale: int, path: Path) -> Tensor:
    height, width = image.shape[-2:]
    smallest = gt_size or scale
    if min(height, width) < smallest:
        raise ImageReadError(f"{path}: {width}x{height} is smaller than {smallest}; leave it out")
    if gt_size is None:
        return image[:, : height - height % scale, : width - width % scale]
    top, left = (height - gt_size) // 2, (width - gt_size) // 2
    return image[:, top : top + gt_size, left : left + gt_size]


def _plan(source: Path, output: Path) -> list[tuple[Path, str]]:
    """List the images with the names of their results, before anything is written."""
    images = list_images(source)
    if source.is_dir() and output.resolve().is_relative_to(source.resolve()):
        raise RasrError(f"output={output} lies inside input={source}; give a folder outside it")
    results = [(output / kind).resolve() for kind in KINDS]
    for path in images:  # whose results would replace them, or be taken for the results of an earlier run
        if any(path.resolve().is_relative_to(folder) for folder in results):
            raise RasrError(f"input={path} lies among the results in output={output}; give another folder")
    owners: dict[str, Path] = {}
    for path in images:
        name = Path(_below(path, source)).with_suffix(".png").as_posix()
        if other := owners.get(name.lower()):  # some file systems do not tell upper from lower case
            raise RasrError(f"{other} and {path} would both become {name}; rename one of them")
        owners[name.lower()] = path
    targets = [(path, Path(_below(path, source)).with_suffix(".png").as_posix()) for path in images]
    originals = {path.resolve() for path in images}
    for target in (output / kind / name for kind in KINDS for _, name in targets):
        if target.resolve() in originals:
            raise RasrError(f"{target} is one of the images of input={source}; give another output=")
    return targets


def _below(path: Path, source: Path) -> str:
    return path.name if path == source else path.relative_to(source).as_posix()


def _files(entry: dict[str, Any], output: Path) -> Iterator[Path]:
    return (output / entry[kind] for kind in KINDS)


def _read_record(path: Path) -> dict[str, dict[str, Any]]:
    """Read the entries by image; a last line that an interruption cut off is dropped."""
    entries = {}
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            entries[entry["image"]] = entry
        except (ValueError, KeyError, TypeError) as error:
            if number < len(lines):
                raise RasrError(f"{path}, line {number} is damaged; delete the file") from error
    return entries


def _write_record(entries: dict[str, dict[str, Any]], output: Path) -> None:
    lines = [json.dumps(entries[image]) + "\n" for image in sorted(entries)]
    with atomic_path(output / RECORD) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8")


def _refuse_other_settings(
    known: dict[str, dict[str, Any]],
    settings: dict[str, Any],
    degradation: Degradation,
    output: Path,
) -> None:
    if degradation.fixed is not None:
        settings = settings | {"parameters": asdict(degradation.fixed)}
    for entry in known.values():
        for name, value in settings.items():
            if entry.get(name) != value:
                raise RasrError(
                    f"output={output} holds a test set with other {name}; give another folder, or delete it"
                )
