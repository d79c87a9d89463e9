"""`python index.py`: the command as a user types it."""

import csv
import json
import os
import subprocess
import sys

import pyarrow.parquet
import pytest
import torch
from huggingface_hub import constants
from hydra.utils import instantiate

from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.indexing.jobs import assign_references
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
    with ReferenceIndex.open(tmp_path / "out" / "index") as index:
        assert (index.count(), index.engine) == (6, "edge")
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
    with Retriever(ReferenceIndex.open(tmp_path / "index"), encoder) as retriever:
        assign_references(manifest, retriever, 9)
        with manifest.open() as file:
            (row,) = csv.DictReader(file)
        assert sorted(row["references"].split(";")) == [f"photos/c{n % 2}/{n}.png" for n in (2, 4, 1, 3, 5)]
        assert "only 5 references" in caplog.text
        # The file has changed since it was indexed: its hash is new, its path still guards it.
        write_png(torch.rand(3, 24, 24), database / "c0" / "0.png")
        assign_references(manifest, retriever, 9)
        with manifest.open() as file:
            (row,) = csv.DictReader(file)
        assert "photos/c0/0.png" not in row["references"].split(";")
        before = manifest.read_text()
        (database / "c0" / "0.png").write_bytes(b"damaged")
        with pytest.raises(RasrError, match=r"0\.png"):
            assign_references(manifest, retriever, 2)
        assert manifest.read_text() == before


def test_bad_image_is_reported_at_the_end(run_index, database, tmp_path):
    (database / "c0" / "broken.png").write_bytes(b"not a picture")
    done = run_index("encoder=color_gradient", "database=photos", "index=index")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: 1 passed over, the rest is indexed")
    assert "broken.png" in done.stderr.splitlines()[-1]
    with ReferenceIndex.open(tmp_path / "index") as index:
        assert index.count() == 6


def contents(place) -> dict:
    with ReferenceIndex.open(place) as index:
        return {i: (payload.content_hash, index.vectors([i])[0].tolist()) for i, payload in index.entries()}


def test_keys_of_a_build_matter(run_index, database, tmp_path):
    """Each of engine, quantize, patch_size, patch_overlap, split and max_score makes a difference."""
    manifest = tmp_path / "m.csv"
    manifest.write_text(
        "image,split,category\nphotos/c0/0.png,a,x\nphotos/c0/2.png,b,x\nphotos/c1/1.png,b,y\n"
    )
    common = ("encoder=color_gradient", "database=m.csv")
    runs = {
        "edge": [],
        "flat": ["engine=flat"],
        "int8": ["quantize=true"],
        "crops": ["patch_size=16", "patch_overlap=8", "engine=flat"],
        "more": ["patch_size=16", "patch_overlap=12", "engine=flat"],
        "split": ["split=b", "engine=flat"],
    }
    for name, keys in runs.items():
        done = run_index(*common, f"index={name}", *keys)
        assert done.returncode == 0, done.stderr
    metas = {name: json.loads((tmp_path / name / "meta.json").read_text()) for name in runs}
    assert [metas[name]["engine"] for name in ("edge", "flat")] == ["edge", "flat"]
    assert [metas[name]["quantize"] for name in ("edge", "int8")] == [False, True]
    assert [metas[name]["count"] for name in ("flat", "crops", "more", "split")] == [3, 12, 27, 2]
    with ReferenceIndex.open(tmp_path / "flat") as index:
        assert index.categories() == {"x": 2, "y": 1}
    best = "photos/c0/2.png"
    assigned = []
    for keys in ([], ["max_score=-1.0"]):
        assert run_index(*common, "index=flat", "assign=m.csv", "references=2", *keys).returncode == 0
        assigned.append(best in manifest.read_text().splitlines()[1])
    assert assigned == [True, False]


@pytest.mark.slow
def test_ranks_of_torchrun_share_the_work(run_index, database, tmp_path, repository):
    for n in range(5):
        write_png(torch.rand(3, 24, 24), database / "c2" / f"{n}.png")
    (database / "c2" / "bad.png").write_bytes(b"no picture")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    keys = ["database=photos", "index=two", "encoder=color_gradient", "engine=flat", "batch_size=2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, repository / "index.py", *keys],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert "1 passed over, the rest is indexed" in done.stderr
    assert "11 embedded" in done.stdout
    assert done.stdout.count("entries in") == 1, "only rank 0 reports"
    run_index("database=photos", "index=one", "encoder=color_gradient", "engine=flat")
    assert contents(tmp_path / "two") == contents(tmp_path / "one")


def test_verify(run_index, database, tmp_path):
    assert run_index("encoder=color_gradient", "database=photos", "index=index").returncode == 0
    for spelling in ("verify", "job=verify"):
        done = run_index(spelling, "index=index")
        assert done.returncode == 0, done.stderr
        assert "6 entries of 6 images checked" in done.stdout
    write_png(torch.rand(3, 24, 24), database / "c1" / "1.png")
    done = run_index("verify", "index=index")
    assert done.returncode == 2
    assert "1 problems, run index.py again to mend" in done.stderr
    assert "1.png: the image has changed" in done.stderr
    assert run_index("verify", "index=index", "check_hashes=false").returncode == 0


def test_neighbours_and_copy(run_index, database, tmp_path):
    assert run_index("encoder=color_gradient", "database=photos", "index=index").returncode == 0
    done = run_index("copy", "index=index", "output=copied", "engine=flat")
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "copied").keys() == contents(tmp_path / "index").keys()

    def rows(index: str, *keys: str) -> list[dict]:
        arguments = (f"index={index}", "input=photos", "output=a/n.parquet", "references=2", *keys)
        done = run_index("neighbours", *arguments)
        assert done.returncode == 0, done.stderr
        return pyarrow.parquet.read_table(tmp_path / "a" / "n.parquet").to_pylist()

    def pairs(table: list[dict]) -> list[tuple[str, str]]:
        return [(row["image"], row["reference"]) for row in table]

    edge = rows("index")
    assert len(edge) == 12
    assert all((tmp_path / "a" / path).is_file() for pair in pairs(edge) for path in pair)
    assert all(image != reference for image, reference in pairs(edge))
    assert pairs(rows("copied")) == pairs(rows("copied", "batch_size=1")) == pairs(edge)
    scores = sorted(row["score"] for row in edge)
    limit = (scores[0] + scores[-1]) / 2
    assert max(row["score"] for row in rows("copied", f"max_score={limit}")) <= limit < scores[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index=i"], "missing key: database"),
        (["database=photos", "index=i"], "encoder.weights=FILE"),
        (["database=photos", "index=i", "encoder=color_gradient", "references=0"], "references=0"),
        (["database=photos", "index=i", "references=x"], "references=x is not a whole number"),
        (["database=photos", "index=i", "max_score=x"], "max_score=x is not a finite number"),
        (
            ["neighbours", "index=i", "input=photos", "output=n", "batch_size=0"],
            "batch_size=0 is not a whole number",
        ),
        (["neighbours", "index=i", "input=photos", "output=photos"], "output=photos is a folder"),
        (["database=photos", "index=i", "encoders=x"], "encoders"),
        (["verify", "index=i"], "no index here"),
        (["neighbours", "index=i"], "missing key: input"),
        (["copy", "index=i"], "missing key: output"),
        (["job=destroy", "index=i"], "job='destroy' is unknown"),
        (["database=photos", "index=i", "patch_size=8", "patch_overlap=8"], "patch_size=8 patch_overlap=8"),
        (["database=photos", "index=i", "patch_size=x"], "patch_size=x is not a whole number"),
        (["database=photos", "index=i", "encoder=color_gradient", "engine=best"], "engine='best'"),
    ],
)
def test_mistakes_are_one_line(run_index, database, tmp_path, monkeypatch, arguments, message):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    done = run_index(*arguments)
    assert done.returncode != 0
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_help_names_every_key(repository, compose):
    command = [sys.executable, repository / "index.py", "--help"]
    text = subprocess.run(command, cwd=repository, capture_output=True, text=True, timeout=120).stdout
    cfg = compose(config_name="index")
    for key in [*cfg, *(f"encoder.{key}" for key in cfg.encoder if key not in ("_target_", "model_name"))]:
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
    random = instantiate(compose(["encoder=random", "encoder.dim=8", "encoder.seed=3"], "index").encoder)
    assert random.settings == {"kind": "random", "dim": 8, "seed": 3}
