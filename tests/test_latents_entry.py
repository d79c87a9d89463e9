"""`index.py latents=` and `infer.py latents=`: the reference VAE runs once per database image."""

import json

import pytest
import torch
from safetensors.torch import load_file

from rasr.image_io import read_image, write_png
from rasr.models import ResidualFusion, build_rasr_net, make_tiny_backbone, save_weights
from tests.helpers import run_entry, wake_zero_convs


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
    assert "latents of 3 images stored, 0 known" in done.stdout
    return folder


def index(folder, **keys):
    keys = {
        "database": "database",
        "index": "index",
        "encoder": "color_gradient",
        "latents": "latents",
        "backbone": "backbone",
        "latent_size": 64,
        "device": "cpu",
    } | keys
    return run_entry("index.py", *(f"{key}={value}" for key, value in keys.items()), cwd=folder)


def infer(folder, **keys):
    keys = {"input": "input", "output": "output", "weights": "weights.safetensors", "device": "cpu"} | keys
    done = run_entry("infer.py", *(f"{key}={value}" for key, value in keys.items()), cwd=folder)
    return done


def record(folder):
    return json.loads((folder / "output" / "results.jsonl").read_text())


@pytest.mark.parametrize("source", [{"index": "index"}, {"reference": "database/b.png"}])
def test_the_reference_vae_never_runs(folder, source, monkeypatch):
    assert infer(folder, **source).returncode == 0
    expected, used = read_image(folder / "output" / "lq.png"), record(folder)
    assert not used["latents"]
    monkeypatch.setattr(ResidualFusion, "encode", None)
    done = infer(folder, latents="latents", **source)
    assert done.returncode == 0, done.stderr
    assert record(folder)["latents"] and record(folder)["reference"] == used["reference"]
    torch.testing.assert_close(read_image(folder / "output" / "lq.png"), expected, atol=2 / 255, rtol=0)
    assert infer(folder).returncode == 0
    assert (read_image(folder / "output" / "lq.png") - expected).abs().max() > 2 / 255


def test_again_only_what_is_new_is_encoded(folder):
    done = index(folder)
    assert "latents of 0 images stored, 3 known" in done.stdout


def test_latent_size_and_backbone_decide_what_is_stored(folder):
    make_tiny_backbone(seed=9).save_pretrained(folder / "other")
    assert index(folder, latents="small", latent_size=32).returncode == 0
    assert index(folder, latents="others", backbone="other").returncode == 0
    tensors = [
        load_file(next((folder / name).rglob("*.safetensors")))["z_ref"]
        for name in ("latents", "small", "others")
    ]
    assert [tuple(t.shape[-2:]) for t in tensors] == [(32, 32), (16, 16), (32, 32)]
    assert not torch.equal(tensors[0], tensors[2])


def test_an_image_that_was_indexed_later_falls_back_to_the_vae(folder):
    write_png(torch.rand(3, 64, 64), folder / "late.png")
    assert infer(folder, latents="latents", reference="late.png").returncode == 0
    assert not record(folder)["latents"]


@pytest.mark.parametrize(
    ("command", "keys", "message"),
    [
        (index, {"backbone": "null"}, "latents= needs a VAE"),
        (index, {"backbone": "database"}, "not a diffusers-format directory"),
        (index, {"latent_size": 33}, "latent_size=33 does not fit"),
        (index, {"latent_size": 32}, "another VAE or size"),
        (index, {"device": "abacus"}, "abacus"),
        (infer, {"latents": "lost", "index": "index"}, "latents=lost is no folder of reference latents"),
        (infer, {"latents": "latents"}, "give index= or reference= too"),
    ],
)
def test_mistakes_are_one_line(folder, command, keys, message):
    done = command(folder, **keys)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
