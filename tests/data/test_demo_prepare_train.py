import csv
import itertools
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from rasr.data import read_rows
from rasr.errors import RasrError
from rasr.image_io import list_images, read_image
from tests.helpers import import_demo

SPLITS = ("train", "database", "test")


@pytest.fixture(scope="module")
def prepare():
    with import_demo("prepare_train") as module:
        yield module


@pytest.fixture(scope="module")
def demo(prepare, tmp_path_factory):
    """The whole demo data set, once."""
    output = tmp_path_factory.mktemp("demo")
    prepare.prepare(output)
    return output


@pytest.fixture(scope="module")
def boxes(demo):
    with (demo / "boxes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for key in ("left", "top", "right", "bottom", "width", "height"):
            row[key] = int(row[key])
    return rows


def overlap(a, b):
    is_beside = a["right"] <= b["left"] or b["right"] <= a["left"]
    is_above = a["bottom"] <= b["top"] or b["bottom"] <= a["top"]
    return a["photo"] == b["photo"] and not is_beside and not is_above


def test_no_crop_shares_a_pixel_with_a_crop_of_another_split(boxes):
    clashes = [
        (a["path"], b["path"])
        for a, b in itertools.combinations(boxes, 2)
        if overlap(a, b) and (a["split"] != b["split"] or a["split"] == "test")
    ]
    assert clashes == []
    assert len({box["photo"] for box in boxes if box["photo"].startswith("motorcycle")}) == 1  # one scene
    assert any(overlap(a, b) for a, b in itertools.combinations(boxes, 2))  # the check can see one


def test_the_boxes_tell_the_truth(prepare, demo, boxes):
    photos = {path.stem: path for path in prepare.find_photos()}
    for box in boxes[::29] + [box for box in boxes if box["split"] == "test"]:
        photo = read_image(photos[box["photo"]])
        if photo.shape[1:] != (box["height"], box["width"]):
            photo = prepare._shrink(photo)
        assert photo.shape[1:] == (box["height"], box["width"])
        crop = photo[:, box["top"] : box["bottom"], box["left"] : box["right"]]
        assert crop.shape == (3, 128, 128)
        torch.testing.assert_close(read_image(demo / box["path"]), crop, atol=0.51 / 255, rtol=0)


def test_every_category_has_every_split_and_the_boxes_are_all_there_is(demo, boxes):
    kinds = {(box["category"], box["split"]) for box in boxes}
    categories = {category for category, _ in kinds}
    assert len(categories) >= 10
    assert kinds == set(itertools.product(categories, SPLITS))
    assert 12 <= sum(box["split"] == "test" for box in boxes) <= 30
    found = {path.relative_to(demo).as_posix() for split in SPLITS for path in list_images(demo / split)}
    assert found == {box["path"] for box in boxes}
    assert all(box["path"].split("/")[:2] == [box["split"], box["category"]] for box in boxes)


def test_the_manifest_lists_training_and_test_crops(demo, boxes):
    rows = read_rows(demo / "manifest.csv")
    assert {(row.image, row.split, row.category) for row in rows} == {
        (box["path"], box["split"], box["category"]) for box in boxes if box["split"] != "database"
    }
    assert not any(row.prompt or row.references for row in rows)


def test_every_held_out_crop_has_an_lr_of_a_quarter_of_its_size(demo):
    lr = {path.relative_to(demo / "lr"): read_image(path) for path in list_images(demo / "lr")}
    assert lr.keys() == {path.relative_to(demo / "test") for path in list_images(demo / "test")}
    for name, image in lr.items():
        gt = read_image(demo / "test" / name)
        assert gt.shape[1:] == (4 * image.shape[1], 4 * image.shape[2])
        small = F.interpolate(gt[None], size=image.shape[1:], mode="area")[0]
        assert 0.005 < (small - image).abs().mean() < 0.25, name  # degraded, and of this very crop


def test_a_second_run_changes_nothing_and_keeps_added_references(prepare, demo, monkeypatch):
    manifest = demo / "manifest.csv"
    original = manifest.read_text()
    manifest.write_text(original.replace(",train,astronaut,,", ",train,astronaut,,database/x.png"))
    before = {path: path.stat().st_mtime_ns for path in demo.rglob("*")}
    monkeypatch.setattr(prepare, "read_image", None)  # a photograph that is read is an error
    prepare.prepare(demo)
    assert {path: path.stat().st_mtime_ns for path in demo.rglob("*")} == before
    manifest.write_text(original)


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_runs_give_the_same_bytes_mend_what_is_missing_and_clear_up(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "PHOTOS", {"skimage/data": ("chelsea.png", "coins.png")})
    prepare.prepare(tmp_path / "one")
    expected = contents(tmp_path / "one")
    monkeypatch.setattr(prepare, "PHOTOS", {"skimage/data": ("chelsea.png", "coffee.png", "no_such.png")})
    prepare.prepare(tmp_path / "two")
    (tmp_path / "two/train/mine.png").write_bytes(b"not made here")
    monkeypatch.setattr(prepare, "PHOTOS", {"skimage/data": ("chelsea.png", "coins.png")})
    prepare.prepare(tmp_path / "two")
    next((tmp_path / "two/lr").rglob("*.png")).unlink()
    prepare.prepare(tmp_path / "two")
    result = contents(tmp_path / "two")
    assert result.pop(Path("train/mine.png")) == b"not made here"
    assert result == expected


@pytest.mark.parametrize("size", [(383, 500), (500, 255), (100, 100)])
def test_small_photographs_are_left_out(prepare, size):
    assert prepare.plan_boxes("any", *size) == []


def test_the_command_finds_its_work_done(prepare, demo, monkeypatch, caplog):
    monkeypatch.setattr(sys, "argv", ["prepare.py", "--output", str(demo)])
    with caplog.at_level("INFO"):
        prepare.main()
    assert f"{demo} is complete: 13 photographs, each a category; 274 training, 106 database" in caplog.text


def test_a_missing_package_is_one_line(prepare, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "PHOTOS", {"no_such_package/data": ("a.png",)})
    with pytest.raises(RasrError, match="the package no_such_package is not installed"):
        prepare.prepare(tmp_path)
