"""`python index.py`: the command as a user types it."""

import csv
import subprocess
import sys

import huggingface_hub
import pytest
import torch
from hydra.utils import instantiate

from index import assign_references
from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.retrieval import ColorGradientEncoder, ReferenceIndex, Retriever, build_index
from tests.helpers import run_entry


@pytest.fixture
def run_index(tmp_path):
    def run(*arguments: str) -> subprocess.CompletedProcess:
        return run_entry("index.py", *arguments, cwd=tmp_path)

    return run


@pytest.fixture
def database(tmp_path):
    for n in range(6):
        write_png(torch.rand(3, 24, 24), tmp_path / "photos" / f"c{n % 2}" / f"{n}.png")
    return tmp_path / "photos"


def test_build_assign_and_report(run_index, database, tmp_path):
    (tmp_path / "train").mkdir()
    manifest = tmp_path / "train" / "manifest.csv"
    manifest.write_text("image,category,prompt\n../photos/c0/0.png,c0,a\nown.png,c1,b\n")
    # The same content under another name must not be its own reference either.
    (tmp_path / "train" / "own.png").write_bytes((database / "c1" / "3.png").read_bytes())
    common = ("encoder=color_gradient", "database=photos", "index=out/index", "batch_size=2")
    done = run_index(*common, "assign=train/manifest.csv", "references=2")
    assert done.returncode == 0, done.stderr
    assert "6 entries in 2 categories" in done.stdout.splitlines()[-1]
    assert "out/index" in done.stdout.splitlines()[-1]
    assert "embedding" in done.stderr, "there is a progress bar"
    assert ReferenceIndex.open(tmp_path / "out" / "index").count() == 6
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "train", "out"}

    with manifest.open() as file:
        first, second = csv.DictReader(file)
    assert (first["category"], first["prompt"], second["image"]) == ("c0", "a", "own.png")
    for row, own in ((first, "0.png"), (second, "3.png")):
        paths = row["references"].split(";")
        assert len(set(paths)) == 2
        assert all((manifest.parent / path).is_file() and not path.endswith(own) for path in paths)

    again = run_index(*common)
    assert "0 embedded" in again.stdout
    assert again.returncode == 0


def test_assigning_more_than_there_are_takes_all_but_itself(database, tmp_path, caplog):
    encoder = ColorGradientEncoder()
    build_index(database, tmp_path / "index", encoder, show_progress=False)
    manifest = tmp_path / "manifest.csv"
    manifest.write_text("image\nphotos/c0/0.png\n")
    retriever = Retriever(ReferenceIndex.open(tmp_path / "index"), encoder)
    assign_references(manifest, retriever, database, 9)
    with manifest.open() as file:
        (row,) = csv.DictReader(file)
    assert sorted(row["references"].split(";")) == [f"photos/c{n % 2}/{n}.png" for n in (2, 4, 1, 3, 5)]
    assert "only 5 references" in caplog.text
    # The file has changed since it was indexed: its hash is new, its id still guards it.
    write_png(torch.rand(3, 24, 24), database / "c0" / "0.png")
    assign_references(manifest, retriever, database, 9)
    assert "photos/c0/0.png" not in manifest.read_text().split(",")[-1]
    before = manifest.read_text()
    (database / "c0" / "0.png").write_bytes(b"damaged")
    with pytest.raises(RasrError, match=r"0\.png"):
        assign_references(manifest, retriever, database, 2)
    assert manifest.read_text() == before


def test_bad_image_is_reported_at_the_end(run_index, database, tmp_path):
    (database / "c0" / "broken.png").write_bytes(b"not a picture")
    done = run_index("encoder=color_gradient", "database=photos", "index=index")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: 1 passed over, the rest is indexed")
    assert "broken.png" in done.stderr.splitlines()[-1]
    assert ReferenceIndex.open(tmp_path / "index").count() == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index=i"], "missing key: database"),
        (["database=photos", "index=i"], "encoder.weights=FILE"),
        (["database=photos", "index=i", "encoder=color_gradient", "references=0"], "references=0"),
        (["database=photos", "index=i", "encoders=x"], "encoders"),
    ],
)
def test_mistakes_are_one_line(run_index, database, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    done = run_index(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_key(repository, compose):
    command = [sys.executable, repository / "index.py", "--help"]
    text = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120).stdout
    cfg = compose(config_name="index")
    for key in [*cfg, "encoder.weights", "encoder.img_size", "encoder.device"]:
        assert f"{key}=" in text


def test_encoder_configs(compose, tmp_path):
    cfg = compose(config_name="index")
    assert cfg.encoder.model_name.startswith("vit_base_patch14_dinov2")
    assert isinstance(instantiate(compose(["encoder=color_gradient"], "index").encoder), ColorGradientEncoder)

    import timm
    from safetensors.torch import save_file

    save_file(timm.create_model("test_vit", pretrained=False).state_dict(), tmp_path / "vit.safetensors")
    keys = ["model_name=test_vit", f"weights={tmp_path}/vit.safetensors", "img_size=96", "device=cpu"]
    encoder = instantiate(compose([f"encoder.{key}" for key in keys], "index").encoder)
    assert encoder.encode([torch.rand(3, 20, 20)]).shape == (1, encoder.dim)
    assert encoder.settings["img_size"] == 96
