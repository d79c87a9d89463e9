"""Finds the photographs that the demo is made of: inside installed packages, and the frames that lie here."""

from importlib.util import find_spec
from pathlib import Path

from rasr.errors import RasrError

FRAMES = Path(__file__).parent / "frames"


def find_photograph(folder: str, name: str) -> Path | None:
    """Returns the photograph's path, or None where this version of the package does not bring it.

    Args:
        folder: package and folder inside it, such as "skimage/data"; or "frames", the folder beside this
        file.
        name: of the file.
    """
    package, _, inside = folder.partition("/")
    if package == FRAMES.name:
        root = FRAMES
    else:
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise RasrError(f"the package {package} is not installed; run: pip install -e .")
        root = Path(spec.submodule_search_locations[0], inside)
    path = root / name
    return path if path.is_file() else None
