"""What the first version wrote still opens, and gives what it gave (tests/golden/README.md)."""

import json
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from rasr.data.manifest import read_rows
from rasr.data.neighbours import attach_neighbours
from rasr.image_io import read_image
from tests.helpers import run_entry

ARCHIVE = Path(__file__).parent / "golden" / "v0.1.tar.gz"
CASES = {
    "folder_correspondence": ("weights=net", "index=flat.index", "kept=corr.kept"),
    "folder_residual": ("weights=net", "fusion=residual", "index=edge.index", "kept=photos.latents"),
    "weights_file": ("weights=residual.safetensors", "index=flat.index"),
    "checkpoint": ("weights=run/checkpoints/last.ckpt", "index=flat.index"),
    "refir": (
        "weights=net",
        "method=refir",
        "index=flat.index",
        "kept=photos.banks",
        "method.ref_size=32",
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder


def test_every_case_is_there(folder):
    assert json.loads((folder / "expected.json").read_text()).keys() == CASES.keys()


@pytest.mark.parametrize("case", CASES)
def test_restorations_are_what_they_were(folder, case):
    expected = json.loads((folder / "expected.json").read_text())[case]
    before = set(folder.rglob("*.safetensors"))
    keys = ("input=lq", f"output=out/{case}", "device=cpu", "color_fix=none")
    done = run_entry("infer.py", *keys, *CASES[case], cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "damaged" not in done.stdout + done.stderr
    (record,) = map(json.loads, (folder / f"out/{case}/results.jsonl").read_text().splitlines())
    assert record["reference"] == expected["reference"] and record["prompt"] == expected["prompt"]
    assert record["score"] == pytest.approx(expected["score"], abs=1e-4)
    assert record["kept"] == any("kept=" in key for key in CASES[case])
    sr = read_image(folder / f"out/{case}/photo.png")
    grid = torch.nn.functional.adaptive_avg_pool2d(sr[None], (6, 6))[0].flatten(0, 1)
    torch.testing.assert_close(grid, torch.tensor(expected["picture"]), atol=2e-3, rtol=0)
    assert set(folder.rglob("*.safetensors")) == before, "nothing had to be made again"


@pytest.mark.parametrize("index", ["flat.index", "edge.index"])
def test_indexes_are_sound(folder, index):
    done = run_entry("index.py", "verify", f"index={index}", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "4 entries of 4 images checked" in done.stdout


def test_a_run_goes_on(folder):
    config = yaml.safe_load((folder / "run" / "config.yaml").read_text())
    assert config["degradation"]["_target_"].startswith("rasr.data."), "as the first version called it"
    done = run_entry(
        "train.py",
        "debug=default",
        "model.backbone=net",
        "gt_size=64",
        "paths.data_dir=.",
        "paths.output_dir=run",
        "data.batch_size=1",
        "trainer.max_steps=3",
        "trainer.val_check_interval=2",
        "resume=run/checkpoints/last.ckpt",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    checkpoint = torch.load(folder / "run/checkpoints/last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3


def test_manifest_and_neighbours_are_read(folder):
    rows = read_rows(folder / "manifest.csv", "train")
    assert [row.prompt for row in rows] == ["a wall", ""]
    (first, *_) = attach_neighbours(rows, folder / "neighbours.parquet")
    assert len(first.reference_paths) == 2 and all(path.is_file() for path in first.reference_paths)


def test_shards_are_read(folder):
    pytest.importorskip("litdata")
    from rasr.data.shards import ShardDataset

    dataset = ShardDataset(str(folder / "shards"), gt_size=64, seed=0)
    assert len(dataset) == 2
