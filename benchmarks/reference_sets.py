"""The test sets of `benchmarks.references`: photographs, and for each references that are right or wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from torch import Tensor

from rasr.data.two_view import ViewRange, make_view
from rasr.image_io import list_images, read_image
from rasr.image_ops import cover_and_crop
from rasr.preparation.sets import split_categories
from rasr.seeding import SampleRandom, sample_seed

SIZE = 256
"""Side of the ground truth of pairs of views, pixels."""
LEAST_SIDE = 300
"""Of a photograph of which pairs of views are made."""
PLAIN = ViewRange(far=0.0, other=0.0, occluder=0.0)
STRENGTHS = ("mild", "osediff", "realesrgan")

Read = Callable[[], Tensor]


@dataclass(frozen=True)
class ReferenceCase:
    """One photograph with its references; pixels are read when they are needed."""

    name: str
    gt: Read
    """Gives (3, H, W) in [0, 1], sides multiples of 32."""
    refs: dict[str, list[Read]] = field(default_factory=dict)
    """By method, `right`, `wrong`, `several`, `same_photo`: references (3, h, w), any size."""


@dataclass(frozen=True)
class ReferenceSet:
    """One test set."""

    key: str
    title: str
    cases: list[ReferenceCase]
    strengths: tuple[str, ...]


def find_reference_sets(photos: Path, *, seed: int) -> list[ReferenceSet]:
    """The sets whose photographs are below a folder; the same cases for the same seed."""
    sets = [
        ReferenceSet("views", "two views of one photograph", list(_views(photos, seed)), STRENGTHS),
        *(
            ReferenceSet(
                f"sceaux{level}",
                f"Sceaux, another photograph, level {level}",
                list(_sceaux(photos, level)),
                ("mild", "realesrgan"),
            )
            for level in (1, 2)
        ),
        ReferenceSet("bedroom", "frames of a video", list(_bedroom(photos)), ("mild", "realesrgan")),
        ReferenceSet("categories", "another of its kind", list(_categories(photos, seed)), ("realesrgan",)),
    ]
    return [one for one in sets if one.cases]


def _views(photos: Path, seed: int) -> Iterator[ReferenceCase]:
    files: list[Path] = []
    if (photos / "categories").is_dir():
        files += [path for _, test in split_categories(photos / "categories").values() for path in test]
    for folder in ("photos/urban100_crop512", "photos/Set14/HR"):
        if (photos / folder).is_dir():
            files += list_images(photos / folder)
    files = [path for path in files if min(read_image(path).shape[-2:]) >= LEAST_SIDE]
    for i, path in enumerate(files):
        another = files[(i + 1) % len(files)]
        key = path.relative_to(photos).as_posix()
        gt, views = partial(_crop, path, seed, key), [partial(_view, path, seed, key, n) for n in range(3)]
        refs = {"right": views[:1], "several": views}
        if another != path:
            refs["wrong"] = [partial(_view, another, seed, another.relative_to(photos).as_posix(), 0)]
        height, width = read_image(path).shape[-2:]
        if max(height, width) >= 2 * SIZE:
            refs["same_photo"] = [partial(_rest, path, seed, key)]
        yield ReferenceCase(key.replace("/", "_"), gt, refs)


def _corner(image: Tensor, seed: int, key: str) -> tuple[int, int]:
    rng = SampleRandom(sample_seed(seed, key, "corner"))
    return tuple(rng.integer(side - SIZE + 1) for side in image.shape[-2:])


def _crop(path: Path, seed: int, key: str) -> Tensor:
    image = read_image(path)
    top, left = _corner(image, seed, key)
    return image[:, top : top + SIZE, left : left + SIZE].contiguous()


def _view(path: Path, seed: int, key: str, number: int) -> Tensor:
    image = read_image(path)
    rng = SampleRandom(sample_seed(seed, key, number, "view"))
    return make_view(image, _corner(image, seed, key), SIZE, PLAIN, rng)[0]


def _rest(path: Path, seed: int, key: str) -> Tensor:
    """The part of the photograph farthest from the crop: the same walls and windows, in other places."""
    image = read_image(path)
    corner = _corner(image, seed, key)
    axis = 0 if image.shape[-2] >= 2 * SIZE else 1
    side = image.shape[1 + axis]
    start = 0 if corner[axis] >= SIZE else side - SIZE
    if abs(start - corner[axis]) < SIZE:  # the crop lies in the middle: what is left beside it
        start = 0 if corner[axis] > side - SIZE - corner[axis] else corner[axis] + SIZE
    stop = min(side, start + SIZE) if start else min(SIZE, corner[axis])
    return image.narrow(1 + axis, start, stop - start).contiguous()


def _sceaux(photos: Path, level: int) -> Iterator[ReferenceCase]:
    folder = photos / "refsr" / "sceaux_sets"
    names = sorted(path.name[:3] for path in folder.glob("*_0.png"))
    for i, name in enumerate(names):
        ref, other = folder / f"{name}_{level}.jpg", folder / f"{name}_5.jpg"
        if not ref.is_file():
            continue
        several = [partial(read_image, folder / f"{name}_{n}.jpg") for n in (level, level + 1, level + 2)]
        refs = {"right": several[:1], "several": several, "wrong": [partial(read_image, other)]}
        # Another wall of the same castle.
        refs["same_photo"] = [partial(read_image, folder / f"{names[(i + 5) % len(names)]}_1.jpg")]
        yield ReferenceCase(name, partial(read_image, folder / f"{name}_0.png"), refs)


def _bedroom(photos: Path) -> Iterator[ReferenceCase]:
    frames = sorted((photos / "refsr" / "bedroom_frames").glob("*.jpg"))
    wrong = sorted((photos / "refsr" / "sceaux_views").glob("*.JPG"))
    wrong += sorted((photos / "refsr" / "sceaux_views").glob("*.jpg"))
    for i, path in enumerate(frames[:-1]):
        several = [
            partial(read_image, frames[n]) for n in (i + 1, max(0, i - 1), min(len(frames) - 1, i + 2))
        ]
        refs = {"right": several[:1], "several": [r for r in several if r.args[0] != path]}
        if wrong:
            refs["wrong"] = [partial(read_image, wrong[i % len(wrong)])]
        yield ReferenceCase(path.stem, partial(_middle, path), refs)


def _middle(path: Path) -> Tensor:
    image = read_image(path)
    top, left = (image.shape[-2] - 512) // 2, (image.shape[-1] - 512) // 2
    return image[:, top : top + 512, left : left + 512].contiguous()


def _categories(photos: Path, seed: int) -> Iterator[ReferenceCase]:
    folder = photos / "categories"
    categories = split_categories(folder) if folder.is_dir() else {}
    names = list(categories)
    for i, (name, (train, test)) in enumerate(categories.items()):
        for path in test:
            rng = SampleRandom(sample_seed(seed, path.name, "other"))
            other = names[(i + 1 + rng.integer(len(names) - 1)) % len(names)]
            right = [partial(read_image, file) for file in train[:3]]
            refs = {"right": right[:1], "several": right}
            refs["wrong"] = [partial(read_image, categories[other][0][0])]
            yield ReferenceCase(f"{name}_{path.stem}", partial(_square, path), refs)


def _square(path: Path) -> Tensor:
    image = read_image(path)
    return cover_and_crop(image[None], (SIZE, SIZE))[0]
