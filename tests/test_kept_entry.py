"""Correspondence fusion as a user runs it: `index.py kept=`, `infer.py kept= references= provenance=`."""

import json

import pytest
import torch

from rasr.fusion.correspondence import CorrespondenceFusion
from rasr.image_io import read_image, write_png
from rasr.models import build_rasr_net, make_tiny_backbone
from tests.helpers import run_keys

SETTINGS = {"head_width": 16, "transfer_width": 16, "ref_size": 128}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    torch.manual_seed(0)
    net = build_rasr_net(make_tiny_backbone(seed=0), fusion="correspondence", fusion_settings=SETTINGS)
    net.fusion.transfer.alpha.data.fill_(0.5)
    net.save_pretrained(folder / "net", dtype=torch.float32)
    for name in ("a", "b", "c"):
        write_png(torch.rand(3, 80, 100), folder / "database" / f"{name}.png")
    for name in ("x", "y"):
        write_png(torch.rand(3, 16, 24), folder / "input" / "deep" / f"{name}.png")
    done = index(folder)
    assert done.returncode == 0, done.stderr
    assert "3 references kept, 0 known" in done.stdout
    return folder


INDEX = {"database": "database", "index": "index", "encoder": "color_gradient", "kept": "kept"}


def index(folder, **keys):
    return run_keys("index.py", folder, **INDEX | {"weights": "net", "device": "cpu"} | keys)


def infer(folder, **keys):
    keys = {"input": "input", "output": "output", "weights": "net", "index": "index", "device": "cpu"} | keys
    return run_keys("infer.py", folder, **keys)


def records(folder):
    return [json.loads(line) for line in (folder / "output" / "results.jsonl").read_text().splitlines()]


def test_kept_references_are_not_computed_again(folder, monkeypatch):
    assert infer(folder).returncode == 0
    expected = read_image(folder / "output" / "deep" / "x.png")
    assert not records(folder)[0]["kept"]
    monkeypatch.setattr(CorrespondenceFusion, "keep", None)
    done = infer(folder, kept="kept")
    assert done.returncode == 0, done.stderr
    assert all(record["kept"] for record in records(folder))
    assert torch.equal(read_image(folder / "output" / "deep" / "x.png"), expected)


def test_again_only_what_is_new_is_kept(folder):
    assert "0 references kept, 3 known" in index(folder).stdout


def test_provenance_and_several_references(folder):
    done = infer(folder, provenance="true", references=2)
    assert done.returncode == 0, done.stderr
    assert "of 2 photographs took detail from a reference" in done.stdout
    for name in ("x", "y"):
        picture = read_image(folder / "output" / "provenance" / "deep" / f"{name}.png")
        assert picture.shape[-1] > 5 * 512  # result, its origin, and two pictures of each reference
    for record in records(folder):
        assert 0 <= record["restored_share"] <= 1
        assert len(record["references"]) == 2


def test_without_references_nothing_is_traced(folder):
    done = infer(folder, reference_kind="none", provenance="true")
    assert done.returncode == 0, done.stderr
    assert "restored_share" not in records(folder)[0]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"kept": "database"}, "kept=database holds other files"),
        ({"fusion": "residual"}, "has no fusion residual"),
        ({"fusion": "abc"}, "fusion='abc' is unknown"),
        ({"latents": "kept"}, "latents= is called kept= now"),
        ({"method.banks": "kept"}, "method.banks= is called kept= now"),
        ({"kept": "kept", "index": "null"}, "give index= or reference= too"),
        ({"conditioning_scale": "abc"}, "conditioning_scale=abc"),
        ({"method": "refir", "kept": "kept"}, "kept=kept was made by other weights (fusion correspondence"),
    ],
)
def test_mistakes_are_one_line(folder, keys, message):
    done = infer(folder, **keys)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


def test_kept_wants_whole_images(folder):
    done = index(folder, patch_size=64)
    assert done.returncode == 2 and "kept=kept keeps whole images" in done.stderr
