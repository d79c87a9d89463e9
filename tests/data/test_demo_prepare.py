"""The demo's pairs: other views that really differ, wrong references of other scenes, the same every time."""

import csv

import pytest
import torch

from rasr.image_io import read_image
from tests.helpers import REPOSITORY, import_demo


@pytest.fixture(scope="module")
def prepare():
    with import_demo("prepare") as module:
        yield module


@pytest.fixture(scope="module")
def folder(prepare, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    prepare.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def pairs(folder):
    with (folder / "pairs.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_enough_photographs_of_a_size_that_shows_something(folder, pairs):
    assert len(pairs) >= 8
    assert sum(pair["kind"] == "real" for pair in pairs) >= 2
    assert {pair["degradation"] for pair in pairs} == {"mild", "realesrgan"}
    for pair in pairs:
        gt, lq = (read_image(folder / kind / f"{pair['name']}.png") for kind in ("test", "lr"))
        assert min(gt.shape[-2:]) >= 360
        assert tuple(4 * side for side in lq.shape[-2:]) == tuple(gt.shape[-2:])


def test_right_is_of_the_scene_and_wrong_is_not(folder, pairs):
    for pair in pairs:
        assert pair["reference"].split("/")[0] == pair["scene"] != pair["wrong"].split("/")[0]
        for kind, key in (("right", "reference"), ("wrong", "wrong")):
            (given,) = (folder / kind).glob(f"{pair['name']}.*")
            assert torch.equal(read_image(given), read_image(folder / "database" / pair[key]))


def test_made_views_are_turned_scaled_and_exposed_otherwise(folder, pairs):
    made = [pair for pair in pairs if pair["kind"] == "made"]
    assert made
    for pair in made:
        assert abs(float(pair["turn"])) > 2
        assert abs(float(pair["zoom"]) - 1) > 0.05
        assert abs(float(pair["exposure"]) - 1) > 0.04
        assert float(pair["shown"]) > 0.6
        gt = read_image(folder / "test" / f"{pair['name']}.png")
        view = read_image(folder / "database" / pair["reference"])
        if view.shape == gt.shape:
            assert (view - gt).abs().mean() > 0.03


def test_the_database_holds_scenes_that_nobody_asks_for(folder, pairs):
    scenes = {path.name for path in (folder / "database").iterdir()}
    assert len(scenes - {pair["scene"] for pair in pairs}) >= 3


def test_runs_give_the_same_bytes(prepare, folder, tmp_path):
    prepare.prepare(tmp_path)
    for path in folder.rglob("*"):
        if path.is_file() and path.name != prepare.RECORD:
            assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path


def test_shipped_frames_have_a_source_and_a_licence():
    frames = REPOSITORY / "data" / "demo" / "frames"
    text = (frames / "SOURCES.md").read_text()
    assert "Apache" in text
    assert all(path.stem.split("_")[0] in text for path in frames.glob("*.jpg"))
