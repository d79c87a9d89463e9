"""Which restored image belongs to which ground truth.

Files are matched by relative path without the extension: `sr/cat/a.png` belongs to `gt/cat/a.jpg`.
"""

from collections import Counter
from pathlib import Path

from rasr.errors import RasrError
from rasr.image_io import list_images


def match_files(
    sr: str | Path, gt: str | Path | None
) -> tuple[dict[str, tuple[Path, Path | None]], list[str]]:
    """Match restored and ground-truth files.

    Args:
        sr: directory of restored images, or one image.
        gt: directory of ground-truth images, or one image; None has no ground truth.

    Returns:
        {name: (sr file, gt file)}, sorted by name, and one text per file that has no partner.
    """
    sr_files = files_by_name(sr)
    if gt is None:
        return {name: (file, None) for name, file in sorted(sr_files.items())}, []
    gt_files = files_by_name(gt)
    if Path(sr).is_file() and Path(gt).is_file():  # two single files are a pair whatever their names
        return {Path(gt).stem: (Path(sr), Path(gt))}, []
    problems = [f"missing in sr {gt_files[name]}" for name in sorted(gt_files.keys() - sr_files.keys())]
    problems += [f"extra in sr {sr_files[name]}" for name in sorted(sr_files.keys() - gt_files.keys())]
    common = sorted(sr_files.keys() & gt_files.keys())
    return {name: (sr_files[name], gt_files[name]) for name in common}, problems


def files_by_name(path: str | Path) -> dict[str, Path]:
    """The images of a folder by relative path without the extension; a single file by its stem."""
    root = Path(path)
    files = list_images(root)
    if root.is_file():
        return {root.stem: root}
    names = [file.relative_to(root).with_suffix("").as_posix() for file in files]
    twins = [name for name, count in Counter(names).items() if count > 1]
    if twins:
        raise RasrError(f"{root}: several files for {', '.join(twins)}; keep one of each")
    return dict(zip(names, files, strict=True))


def refuse(problems: list[str]) -> None:
    """Raise one error that lists all problems, if there are any."""
    if problems:
        raise RasrError(f"{'; '.join(problems)}; mend the folders or add strict=false to leave these out")
