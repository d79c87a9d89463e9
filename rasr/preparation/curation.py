"""Choosing images for a data set with retrieved references: quality, near-duplicates, split.

What `data/rasr_custom/prepare.py` decides, as plain functions; nothing here writes a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import imagehash
import numpy as np
from PIL import Image, ImageOps

from rasr.image_io import ImageReadError, read_pixels, to_tensor, to_uint8
from rasr.preparation.jobs import Job
from rasr.seeding import sample_seed

HASH_SIDE = 16  # the perceptual hash has HASH_SIDE ** 2 bits
TILE = 32  # pixels
BLOCK = 2048  # hashes compared at once


@dataclass(frozen=True)
class Measured:
    """What is known of one photograph."""

    name: str
    """Its path within the collection."""
    category: str
    width: int
    height: int
    sharpness: float
    """See :func:`measure_sharpness`."""
    hash: str
    """Perceptual hash of HASH_SIDE**2 bits, in hex."""
    mirrored_hash: str
    """The same of the mirrored image."""


def measure_image(job: Job) -> dict:
    """Decode a photograph and return its size, sharpness and hashes, or its fault."""
    try:
        pixels = read_pixels(job.source)
    except ImageReadError as error:
        return {"fault": str(error).removeprefix(f"{job.source}: ")}
    if pixels.dtype != np.uint8:
        pixels = to_uint8(to_tensor(pixels))
    image = Image.fromarray(pixels)
    return {
        "width": image.width,
        "height": image.height,
        "sharpness": round(measure_sharpness(pixels), 2),
        "hash": str(imagehash.phash(image, hash_size=HASH_SIDE)),
        "mirrored_hash": str(imagehash.phash(ImageOps.mirror(image), hash_size=HASH_SIDE)),
    }


def measure_sharpness(pixels: np.ndarray) -> float:
    """Measure how sharp the sharp parts of an image are, in grey levels.

    The standard deviation of the Laplacian in tiles of 32x32 pixels, and of the tiles the 90th percentile: a
    blurred background costs nothing, an enlarged or defocused photograph has no sharp tile at all.

    Args:
        pixels: (H, W, 3) uint8.
    """
    grey = pixels.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    laplacian = -4 * grey[1:-1, 1:-1]
    laplacian += grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1]
    rows, columns = (length // TILE for length in laplacian.shape)
    if not rows or not columns:
        return float(laplacian.std()) if laplacian.size else 0.0
    tiles = laplacian[: rows * TILE, : columns * TILE].reshape(rows, TILE, columns, TILE)
    return float(np.percentile(tiles.std(axis=(1, 3)), 90))


def group_duplicates(photos: Sequence[Measured], max_distance: int) -> list[list[Measured]]:
    """Return the groups of two or more photographs that show the same picture, mirrored or not.

    Two are the same if their hashes differ in at most `max_distance` bits; a group is what hangs together by
    such pairs. Its best photograph comes first: the largest, then the sharpest.
    """
    parents = list(range(len(photos)))

    def find(member: int) -> int:
        while parents[member] != member:
            parents[member] = parents[parents[member]]
            member = parents[member]
        return member

    for first, second, _ in close_pairs(photos, photos, max_distance):
        parents[find(first)] = find(second)
    groups: dict[int, list[Measured]] = {}
    for member, photo in enumerate(photos):
        groups.setdefault(find(member), []).append(photo)
    return [sorted(group, key=_rank) for group in groups.values() if len(group) > 1]


def close_pairs(
    left: Sequence[Measured], right: Sequence[Measured], max_distance: int
) -> list[tuple[int, int, int]]:
    """Return (number in left, number in right, bits) of all pairs of two photographs at most so far apart."""
    if not left or not right:
        return []
    plain = _signs([photo.hash for photo in left])
    names = [photo.name for photo in right]
    pairs = []
    # Bits apart is a matrix product of hashes written as +1 and -1: fast for tens of thousands of photos.
    for start in range(0, len(right), BLOCK):
        block = right[start : start + BLOCK]
        agreement = np.maximum(
            plain @ _signs([photo.hash for photo in block]).T,
            plain @ _signs([photo.mirrored_hash for photo in block]).T,
        )
        apart = ((HASH_SIDE**2 - agreement) / 2).round().astype(int)
        for first, second in np.argwhere(apart <= max_distance).tolist():
            if left[first].name != names[start + second]:
                pairs.append((first, start + second, int(apart[first, second])))
    return pairs


def split_category(
    photos: Sequence[Measured], seed: int, *, train: int, test: int, min_reference: int
) -> dict[str, list[Measured]] | None:
    """Divide a category at random into train, test and reference (the rest).

    Each photograph's lot is drawn from the seed and its own name, so that a few more or fewer photographs
    move as few others as can be.

    Returns:
        The three lists, sorted by name; None if the category is too small for them.
    """
    if len(photos) < train + test + min_reference:
        return None
    drawn = sorted(photos, key=lambda photo: sample_seed(seed, photo.name))
    parts = {"test": drawn[:test], "train": drawn[test : test + train], "reference": drawn[test + train :]}
    return {name: sorted(part, key=lambda photo: photo.name) for name, part in parts.items()}


def _rank(photo: Measured) -> tuple[int, float, str]:
    return -photo.width * photo.height, -photo.sharpness, photo.name


def _signs(hashes: Sequence[str]) -> np.ndarray:
    """Return (n, bits) of +1 and -1."""
    data = np.array([np.frombuffer(bytes.fromhex(text), np.uint8) for text in hashes])
    return np.unpackbits(data, axis=1).astype(np.float32) * 2 - 1
