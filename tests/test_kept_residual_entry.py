"""Kept references of fusion=residual, `index.py kept=` and `infer.py kept=`: its VAE runs once per image."""

import json

import pytest
import torch
from safetensors.torch import load_file

from rasr.image_io import read_image, write_png
from rasr.models import ResidualFusion, build_rasr_net, make_tiny_backbone, save_weights
from tests.helpers import run_keys, wake_zero_convs
from tests.test_kept_entry import INDEX


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("latents")
    make_tiny_backbone(seed=0).save_pretrained(folder / "backbone")
    net = build_rasr_net(str(folder / "backbone"))
    wake_zero_convs(net)
    save_weights(net, folder / "weights")
    for name in ("a", "b", "c"):
        write_png(torch.rand(3, 80, 100), folder / "database" / f"{name}.png")
    write_png(torch.rand(3, 16, 16), folder / "input" / "lq.png")
    done = index(folder)
    assert done.returncode == 0, done.stderr
    assert "3 references kept, 0 known" in done.stdout
    return folder


def index(folder, **keys):
    fixed = {"weights": "weights.safetensors", "kept_size": 64, "device": "cpu"}
    return run_keys("index.py", folder, **INDEX | fixed | keys)


def infer(folder, **keys):
    fixed = {"input": "input", "output": "output", "weights": "weights.safetensors", "device": "cpu"}
    return run_keys("infer.py", folder, **fixed | keys)


def record(folder):
    return json.loads((folder / "output" / "results.jsonl").read_text())


@pytest.mark.parametrize("source", [{"index": "index"}, {"reference": "database/b.png"}])
def test_the_reference_vae_never_runs(folder, source, monkeypatch):
    assert infer(folder, **source).returncode == 0
    expected, used = read_image(folder / "output" / "lq.png"), record(folder)
    assert not used["kept"]
    monkeypatch.setattr(ResidualFusion, "encode", None)
    done = infer(folder, kept="kept", **source)
    assert done.returncode == 0, done.stderr
    assert record(folder)["kept"] and record(folder)["reference"] == used["reference"]
    torch.testing.assert_close(read_image(folder / "output" / "lq.png"), expected, atol=2 / 255, rtol=0)
    assert infer(folder).returncode == 0
    assert (read_image(folder / "output" / "lq.png") - expected).abs().max() > 2 / 255


def test_again_only_what_is_new_is_encoded(folder):
    done = index(folder)
    assert "0 references kept, 3 known" in done.stdout


def test_size_and_backbone_decide_what_is_kept(folder):
    make_tiny_backbone(seed=9).save_pretrained(folder / "other")
    assert index(folder, kept="small", kept_size=32).returncode == 0
    assert index(folder, kept="others", backbone="other").returncode == 0
    tensors = [
        load_file(next((folder / name).rglob("*.safetensors")))["latents"]
        for name in ("kept", "small", "others")
    ]
    assert [tuple(t.shape[-2:]) for t in tensors] == [(32, 32), (16, 16), (32, 32)]
    assert not torch.equal(tensors[0], tensors[2])


def test_an_image_that_was_indexed_later_falls_back_to_the_vae(folder):
    write_png(torch.rand(3, 64, 64), folder / "late.png")
    assert infer(folder, kept="kept", reference="late.png").returncode == 0
    assert not record(folder)["kept"]


@pytest.mark.parametrize(
    ("command", "keys", "message"),
    [
        (index, {"weights": "backbone"}, "these weights have no reference fusion"),
        (index, {"weights": "database"}, "not a diffusers-format directory"),
        (index, {"kept_size": 33}, "kept_size=33 does not fit"),
        (index, {"kept_size": 32}, "not at kept_size=32"),
        (index, {"device": "abacus"}, "abacus"),
        (index, {"latents": "kept"}, "latents= is called kept= now"),
        (infer, {"kept": "lost", "index": "index"}, "kept=lost is no folder of kept references"),
        (infer, {"kept": "kept"}, "give index= or reference= too"),
    ],
)
def test_mistakes_are_one_line(folder, command, keys, message):
    done = command(folder, **keys)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
