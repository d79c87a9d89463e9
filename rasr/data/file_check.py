"""A quick look at image files before a long run: headers and endings, not pixels.

It finds what is missing, empty, too small, no image, or cut short by an interrupted copy. Damage in the
middle of a file shows only when it is decoded; `prepare.py` of a set does that once, and training skips such
a file with a record (:mod:`rasr.data.skips`).
"""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from rasr.errors import RasrError
from rasr.image_io import ImageReadError, read_pixels

READERS = 8
BAD_FILES_SHOWN = 5
# What a complete file ends with; some cameras write a little more behind it.
END_MARKS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
TAIL_BYTES = 32


def check_files(source: str | Path, files: Iterable[tuple[Path, str]], min_side: int) -> None:
    """Look at every file once and raise one RasrError that counts and names the bad ones.

    Args:
        source: the data set, for the message.
        files: path, and the words that lead a user to it.
        min_side: least height and width in pixels.
    """
    users: dict[Path, str] = {}
    for path, user in files:
        users.setdefault(path, user)
    with ThreadPoolExecutor(READERS) as pool:
        faults = list(pool.map(lambda path: find_fault(path, min_side), users))
    bad = [f"{user}: {fault}" for user, fault in zip(users.values(), faults, strict=True) if fault]
    if bad:
        rest = f"; and {len(bad) - BAD_FILES_SHOWN} more" if len(bad) > BAD_FILES_SHOWN else ""
        raise RasrError(
            f"{source}: {len(bad)} of {len(users)} image files cannot be used (replace them, delete "
            f"their rows or lower gt_size): {'; '.join(bad[:BAD_FILES_SHOWN])}{rest}"
        )


def find_fault(path: Path, min_side: int) -> str | None:
    """Return what is wrong with an image file as far as its header and its end tell, or None."""
    try:
        with Image.open(path) as image:
            (width, height), mark = image.size, END_MARKS.get(image.format or "")
        is_whole = mark is None or mark in _tail(path)
    except FileNotFoundError:
        return "no such file"
    except UnidentifiedImageError:
        return "not an image that Pillow can read"
    except Exception as error:  # Pillow's plugins raise nearly any type on damaged headers
        return f"unreadable ({' '.join(str(error).split()) or type(error).__name__})"
    if min(width, height) < min_side:
        return f"{width}x{height} is smaller than gt_size {min_side}"
    return None if is_whole else _find_decoding_fault(path)


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read()


def _find_decoding_fault(path: Path) -> str | None:
    try:
        read_pixels(path)
    except ImageReadError as error:
        return str(error).removeprefix(f"{path}: ")
    return None
