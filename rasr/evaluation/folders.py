"""Which restored image belongs to which ground truth.

Files are matched by relative path without the extension: `sr/cat/a.png` belongs to `gt/cat/a.jpg`.
"""

from collections import Counter
from pathlib import Path

from PIL import Image

from rasr.drawing.provenance import PROVENANCE_FOLDER
from rasr.errors import RasrError
from rasr.image_io import ImageReadError, list_images, read_image

RESULTS_FILE = "results.jsonl"
"""In a folder that infer.py wrote: what it did."""


def match_files(
    sr: str | Path, gt: str | Path | None, *, kind: str = "sr"
) -> tuple[dict[str, tuple[Path, Path | None]], list[str]]:
    """Match restored and ground-truth files.

    Args:
        sr: directory of restored images, or one image.
        gt: directory of ground-truth images, or one image; None has no ground truth.
        kind: what the first folder is called in the texts.

    Returns:
        {name: (sr file, gt file)}, sorted by name, and one text per file that has no partner.
    """
    sr_files = files_by_name(sr)
    if gt is None:
        return {name: (file, None) for name, file in sorted(sr_files.items())}, []
    gt_files = files_by_name(gt)
    if Path(sr).is_file() and Path(gt).is_file():  # two single files are a pair whatever their names
        return {Path(gt).stem: (Path(sr), Path(gt))}, []
    problems = [f"missing in {kind} {gt_files[name]}" for name in sorted(gt_files.keys() - sr_files.keys())]
    problems += [f"extra in {kind} {sr_files[name]}" for name in sorted(sr_files.keys() - gt_files.keys())]
    common = sorted(sr_files.keys() & gt_files.keys())
    return {name: (sr_files[name], gt_files[name]) for name in common}, problems


def files_by_name(path: str | Path) -> dict[str, Path]:
    """The images of a folder by relative path without the extension; a single file by its stem.

    The pictures that `infer.py provenance=true` draws about its results are no results.
    """
    root = Path(path)
    files = list_images(root)
    if (root / RESULTS_FILE).is_file():
        files = [file for file in files if root / PROVENANCE_FOLDER not in file.parents]
    if root.is_file():
        return {root.stem: root}
    names = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise RasrError(f"{root}: several files for {', '.join(twins)}; keep one of each")
    return dict(zip(names, files, strict=True))


def check_pairs(sr: str | Path, gt: str | Path | None) -> dict[str, tuple[Path, Path | None]]:
    """The pairs of `match_files`, or one error that lists all files that do not fit, by names and headers."""
    pairs, problems = match_files(sr, gt)
    for sr_file, gt_file in pairs.values():
        try:
            if gt_file is None or _header_size(sr_file) == _header_size(gt_file):
                continue
            sizes = [tuple(read_image(file).shape) for file in (sr_file, gt_file)]  # EXIF may turn an image
        except ImageReadError as error:
            problems.append(f"unreadable {error}")
            continue
        if sizes[0] != sizes[1]:
            problems.append(describe_mismatch(sr_file, gt_file, *sizes))
    refuse(problems)
    return pairs


def describe_mismatch(
    sr_file: Path, gt_file: Path, sr_shape: tuple[int, ...], gt_shape: tuple[int, ...]
) -> str:
    """Which files have which sizes; the shapes are (3, H, W)."""
    sizes = " and ".join(f"{width}x{height}" for _, height, width in (sr_shape, gt_shape))
    return f"different sizes {sr_file} and {gt_file} ({sizes})"


def _header_size(file: Path) -> tuple[int, int]:
    """Width and height without decoding."""
    try:
        with Image.open(file) as image:
            return image.size
    except Exception:  # `read_image` says what is wrong with it
        _, height, width = read_image(file).shape
        return width, height


def refuse(problems: list[str]) -> None:
    """Raise one error that lists all problems, if there are any."""
    if problems:
        raise RasrError(f"{'; '.join(problems)}; mend the folders or add strict=false to leave these out")
