"""The builder of a new set: quality, near-duplicates across all splits, split, report."""

import csv
import re

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from skimage import data as photos

from rasr.data import read_rows
from rasr.image_io import read_image
from rasr.preparation.curation import (
    HASH_SIDE,
    Measured,
    close_pairs,
    group_duplicates,
    measure_image,
    measure_sharpness,
)
from rasr.preparation.jobs import Job
from tests.helpers import run_logged

SIZE = 96
TWINS_OF_3 = ("cats/03.png", "dogs/resaved.jpg", "dogs/mirrored.png")
TWINS_OF_12 = ("dogs/12.png", "cats/brighter.png", "cats/smaller.png")


def scenes():
    """Pieces of real photographs that share no pixel."""
    for photo in (photos.astronaut(), photos.coffee(), photos.chelsea()):
        for top in range(0, photo.shape[0] - SIZE + 1, SIZE):
            for left in range(0, photo.shape[1] - SIZE + 1, SIZE):
                yield Image.fromarray(photo[top : top + SIZE, left : left + SIZE])


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """Three categories with planted twins, blurred, small and damaged files."""
    folder = tmp_path_factory.mktemp("custom") / "photos"
    sharp = [image for image in scenes() if measure_sharpness(np.asarray(image)) > 25][:27]
    del sharp[14]  # much like its neighbour on the same table
    assert len(sharp) == 26
    for number, image in enumerate(sharp[:22]):
        path = folder / ("cats" if number < 11 else "dogs") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    for number, image in enumerate(sharp[22:]):
        (folder / "few").mkdir(exist_ok=True)
        image.save(folder / "few" / f"{number}.png")
    image = sharp[3]
    image.save(folder / "dogs/resaved.jpg", quality=60)
    ImageOps.mirror(image).save(folder / "dogs/mirrored.png")
    ImageEnhance.Brightness(sharp[12]).enhance(1.25).save(folder / "cats/brighter.png")
    sharp[12].resize((84, 84)).save(folder / "cats/smaller.png")
    sharp[0].filter(ImageFilter.GaussianBlur(2)).rotate(90).save(folder / "cats/blurred.png")
    sharp[1].resize((40, 40)).save(folder / "cats/tiny.png")
    (folder / "cats/damaged.png").write_bytes((folder / "cats/00.png").read_bytes()[:900])
    return folder


@pytest.fixture(scope="module")
def build():
    """Run the builder with limits that fit the small collection; further arguments override them."""

    def run(collection, output, *arguments):
        return run_logged(
            "data/rasr_custom/prepare.py",
            *("--input", collection, "--output", output, "--workers", "0", "--crop", "64"),
            *("--short-side", "80", "--train", "4", "--test", "2", "--min-reference", "3", *arguments),
        )

    return run


@pytest.fixture(scope="module")
def built(build, collection, tmp_path_factory):
    output = tmp_path_factory.mktemp("built")
    done = build(collection, output)
    assert done.returncode == 0, done.stderr
    return output, done


def fates(output):
    with (output / "photos.csv").open(newline="") as file:
        return {row["photo"]: row["fate"] for row in csv.DictReader(file)}


def test_every_photograph_has_its_fate(built):
    output, done = built
    found = fates(output)
    assert found["cats/tiny.png"] == "too small" and found["cats/blurred.png"] == "blurred"
    for twins in (TWINS_OF_3, TWINS_OF_12):
        assert sorted(found[name] == "duplicate" for name in twins) == [False, True, True]
    assert [found[f"few/{index}.png"] for index in range(4)] == ["category too small"] * 4
    counts = [sum(fate == name for fate in found.values()) for name in ("train", "test", "reference")]
    assert counts[:2] == [8, 4] and counts[2] == 10
    assert "1 unreadable" in done.stderr and "1 categories are too small: few (4 usable)" in done.stderr
    assert "8 train, 4 test" in done.stderr


def test_no_test_image_has_its_twin_anywhere(built):
    output, _ = built
    measured = {
        split: [
            Measured(str(path), "", **measure_image(Job(path)))
            for path in sorted((output / split).rglob("*.png"))
        ]
        for split in ("train", "test", "reference")
    }
    others = measured["train"] + measured["reference"]
    assert len(measured["test"]) == 4 and len(others) == 18
    assert close_pairs(measured["test"], others, 64) == []
    assert close_pairs(measured["test"], measured["test"][:1], HASH_SIDE**2) != []  # the check can see one


def test_crops_are_shrunk_and_cut_from_the_originals(built, collection):
    output, _ = built
    rows = read_rows(output / "manifest.csv")
    assert {(row.split, row.category) for row in rows} == {
        (split, category) for split in ("train", "test") for category in ("cats", "dogs")
    }
    for row in rows:
        crop = read_image(row.image_path)
        assert crop.shape == (3, 64, 64)
        original = read_image(collection / row.image.removesuffix(".png").split("/", 1)[1])
        small = torch.nn.functional.interpolate(original[None], (80, 80), mode="area")[0][:, 8:72, 8:72]
        assert (crop - small).abs().mean() < 0.04


def test_the_report_shows_it_all_and_needs_nothing_else(built):
    page = (built[0] / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") > 22 + 5
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    for text in ("<td>cats</td>", "mirrored.png", "Groups of near-duplicates: 2", "1 more could not be read"):
        assert text in page
    assert "<td>all</td><td>8</td><td>4</td><td>10</td><td>1</td><td>1</td><td>4</td><td>4</td>" in page


def test_a_second_run_is_cheap_and_another_split_leaves_nothing_behind(
    build, built, collection, tmp_path, monkeypatch
):
    assert build(collection, tmp_path).returncode == 0
    same = {path.name for path in tmp_path.rglob("*.png")}
    monkeypatch.setattr("rasr.preparation.curation.read_pixels", lambda path: 1 / 0)
    monkeypatch.setattr("rasr.preparation.sets.read_pixels", lambda path: 1 / 0)
    assert build(collection, tmp_path).returncode == 0
    assert {path.name for path in tmp_path.rglob("*.png")} == same
    monkeypatch.undo()
    done = build(collection, tmp_path, "--seed", "1")
    assert "crops of an earlier run removed" in done.stderr
    assert fates(tmp_path) != fates(built[0])
    listed = {name for name, fate in fates(tmp_path).items() if fate in ("train", "test", "reference")}
    found = [path.relative_to(tmp_path).parts[1:] for path in tmp_path.rglob("*.png")]
    assert sorted("/".join(parts).removesuffix(".png") for parts in found) == sorted(listed)


@pytest.mark.parametrize(
    ("arguments", "fate", "count"),
    [
        (("--min-sharpness", "0"), "blurred", 0),
        (("--max-distance", "0"), "duplicate", 3),  # equal hashes
        (("--min-reference", "1", "--train", "1"), "category too small", 0),
        (("--crop", "90", "--short-side", "96"), "too small", 2),
    ],
)
def test_every_limit_does_something(build, collection, tmp_path, built, arguments, fate, count):
    assert build(collection, tmp_path, *arguments).returncode == 0
    assert sum(value == fate for value in fates(tmp_path).values()) == count
    assert sum(value == fate for value in fates(built[0]).values()) != count


def test_sharpness_sees_blur_and_enlargement_but_not_a_soft_background():
    photo = Image.fromarray(photos.astronaut())
    sharp = measure_sharpness(np.asarray(photo))
    soft = photo.filter(ImageFilter.GaussianBlur(2))
    assert measure_sharpness(np.asarray(soft)) < 0.3 * sharp
    enlarged = photo.resize((170, 170)).resize(photo.size, Image.Resampling.BICUBIC)
    assert measure_sharpness(np.asarray(enlarged)) < 0.4 * sharp
    soft.paste(photo.crop((128, 0, 384, 256)), (128, 0))  # a sharp quarter in a soft picture
    assert measure_sharpness(np.asarray(soft)) > 0.5 * sharp
    assert measure_sharpness(np.zeros((2, 2, 3), np.uint8)) == 0


def test_groups_hang_together_and_their_best_comes_first():
    def photo(name, bits, size):
        value = f"{(1 << bits) - 1:064x}"
        return Measured(name, "", size, size, 1.0, value, "f" * 64)

    chain = [photo("a", 0, 5), photo("b", 60, 9), photo("c", 120, 7), photo("d", 250, 7)]
    (group,) = group_duplicates([chain[0], chain[1], chain[2]], 64)
    assert [member.name for member in group] == ["b", "c", "a"]
    assert group_duplicates([chain[0], chain[2]], 64) == []


@pytest.mark.shared_data
def test_real_categories(build, shared_data, tmp_path):
    """Eight to 23 photographs in each of 38 categories, near-duplicates removed by their collector."""
    done = build(
        shared_data / "categories",
        tmp_path,
        "--min-reference",
        "1",
        "--train",
        "2",
        "--test",
        "1",
        "--crop",
        "192",
        "--short-side",
        "256",
    )
    assert done.returncode == 0, done.stderr
    found = fates(tmp_path)
    assert len(found) == 319 and "duplicate" not in found.values()
    rows = read_rows(tmp_path / "manifest.csv")
    assert len({row.category for row in rows}) >= 35
