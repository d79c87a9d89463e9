"""infer.py as a user runs it: files in, files out, clear errors, nothing lost."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from rasr.image_io import content_hash, read_image, write_png
from rasr.models import build_rasr_net, make_tiny_backbone, save_weights
from rasr.retrieval import ColorGradientEncoder, build_index
from tests.helpers import REPOSITORY, run_entry, wake_zero_convs
from tests.osediff_file import write_osediff

SIZES = {"tiny": (1, 1), "odd": (31, 17), "wide": (100, 30)}  # width, height


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Weights, a database of three colours with its index, and images to restore."""
    folder = tmp_path_factory.mktemp("infer")
    make_tiny_backbone(seed=0).save_pretrained(folder / "backbone")
    net = build_rasr_net(str(folder / "backbone"))
    wake_zero_convs(net)
    save_weights(net, folder / "weights")
    generator = torch.Generator().manual_seed(0)
    for name, colour in {"red": (0.8, 0.1, 0.1), "green": (0.1, 0.8, 0.1), "blue": (0.1, 0.1, 0.8)}.items():
        noise = 0.1 * torch.rand(3, 64, 64, generator=generator)
        write_png(torch.tensor(colour).view(3, 1, 1) + noise, folder / "database" / name / f"{name}.png")
    (folder / "database" / "red" / "red.txt").write_text("a red wall\n")
    build_index(folder / "database", folder / "index", ColorGradientEncoder())
    (folder / "input").mkdir()
    (folder / "told").mkdir()
    for name, size in SIZES.items():
        Image.new("RGB", size, (200, 30, 30)).save(folder / "input" / f"{name}.png")
    Image.new("RGB", (20, 20), (200, 30, 30)).save(folder / "told" / "told.png")
    (folder / "told" / "told.txt").write_text("at dusk")
    return folder


def infer(folder: Path, **keys) -> subprocess.CompletedProcess:
    keys = {"output": folder / "output", "weights": folder / "weights.safetensors", "device": "cpu"} | keys
    shutil.rmtree(folder / "output", ignore_errors=True)
    return run_entry("infer.py", *(f"{key}={value}" for key, value in keys.items()))


def records(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "output" / "results.jsonl").read_text().splitlines()]


def test_folder_with_index(folder):
    keys = {"input": "input", "output": "output", "weights": "weights.safetensors", "index": "index"}
    command = [
        sys.executable,
        REPOSITORY / "infer.py",
        *(f"{key}={folder / name}" for key, name in keys.items()),
    ]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    written = {
        p.relative_to(folder / "output").as_posix() for p in (folder / "output").rglob("*") if p.is_file()
    }
    assert written == {"tiny.png", "odd.png", "wide.png", "results.jsonl"}
    for name, (width, height) in SIZES.items():
        assert read_image(folder / "output" / f"{name}.png").shape == (3, 4 * height, 4 * width)
    for record in records(folder):
        assert record["reference"] == "red/red.png"
        assert -1 <= record["score"] <= 1
        assert record["seconds"] > 0


def test_twice_the_same_bytes(folder):
    hashes = []
    for _ in range(2):
        assert infer(folder, input=folder / "input" / "odd.png", index=folder / "index").returncode == 0
        hashes.append(content_hash(folder / "output" / "odd.png"))
    assert hashes[0] == hashes[1]


def test_every_key_matters(folder):
    """One run per key: each changes the picture (or its size)."""
    blue = folder / "database" / "blue" / "blue.png"
    make_tiny_backbone(seed=9).save_pretrained(folder / "other")
    backbone = make_tiny_backbone(seed=0)
    osediff = write_osediff(backbone.unet, backbone.vae, folder / "osediff.pkl")
    runs = {
        # Without a colour fix: it would leave little of a flat photograph to be compared.
        "default": {"index": folder / "index"},
        "without": {},
        "reference": {"reference": blue},
        "category": {"index": folder / "index", "category": "green"},
        "scale": {"index": folder / "index", "scale": 2},
        "conditioning_scale": {"index": folder / "index", "conditioning_scale": 1.0},
        "given": {"index": folder / "index", "prompt": "given", "prompt.text": "'a cat'"},
        "backbone": {"index": folder / "index", "backbone": folder / "other"},
        "osediff_weights": {"index": folder / "index", "osediff_weights": osediff},
        "adain": {"index": folder / "index", "color_fix": "adain"},
        "wavelet": {"index": folder / "index", "color_fix": "wavelet"},
        "tile_size": {"index": folder / "index", "tile_size": 64, "tile_overlap": 16},
        "tile_overlap": {"index": folder / "index", "tile_size": 64, "tile_overlap": 32},
        "process_size": {"index": folder / "index", "process_size": 128},
    }
    pictures = {}
    for name, keys in runs.items():
        done = infer(folder, input=folder / "input" / "odd.png", **{"color_fix": "none"} | keys)
        assert done.returncode == 0, done.stderr
        pictures[name] = content_hash(folder / "output" / "odd.png")
    assert len(set(pictures.values())) == len(runs), pictures


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "at dusk, a red wall"),
        ({"prompt_from": "lq"}, "at dusk"),
        ({"prompt_from": "ref"}, "a red wall"),
        ({"prompt_from": "none"}, ""),
        ({"prompt": "none"}, "a red wall"),
        ({"prompt": "given", "prompt.text": "'a cat'"}, "a cat, a red wall"),
    ],
)
def test_prompts_of_table_3(folder, keys, expected):
    done = infer(folder, input=folder / "told", index=folder / "index", **keys)
    assert done.returncode == 0, done.stderr
    assert [record["prompt"] for record in records(folder)] == [expected]


def test_a_fixed_reference_brings_its_own_prompt(folder):
    done = infer(folder, input=folder / "told", reference=folder / "database" / "red" / "red.png")
    assert done.returncode == 0, done.stderr
    assert [record["prompt"] for record in records(folder)] == ["at dusk, a red wall"]


def test_output_inside_the_input_is_refused(folder):
    done = infer(folder, input=folder / "input", output=folder / "input" / "restored")
    assert done.returncode == 2
    assert "lies inside input=" in done.stderr


def test_a_near_duplicate_is_passed_over(folder):
    assert infer(folder, input=folder / "input" / "odd.png", index=folder / "index").returncode == 0
    best = records(folder)[0]
    keys = {"index": folder / "index", "max_score": best["score"] - 1e-3}
    assert infer(folder, input=folder / "input" / "odd.png", **keys).returncode == 0
    second = records(folder)[0]
    assert second["reference"] not in (None, best["reference"]) and second["score"] < best["score"]


def test_a_query_never_finds_itself(folder):
    done = infer(folder, input=folder / "database" / "red", index=folder / "index")
    assert done.returncode == 0, done.stderr
    assert records(folder)[0]["reference"] != "red/red.png"


def test_bad_file_is_reported_and_the_rest_restored(folder, tmp_path):
    shutil.copytree(folder / "input", tmp_path / "input")
    (tmp_path / "input" / "broken.png").write_bytes(b"")
    done = infer(folder, input=tmp_path / "input")
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: 1 of 4 files could not be read") and "broken.png" in last
    assert len(records(folder)) == 3


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"input": "nowhere"}, "nowhere"),
        (
            {"input": "{folder}/input", "weights": "lost.safetensors"},
            "weights=lost.safetensors does not exist",
        ),
        ({"input": "{folder}/input", "reference": "lost.png"}, "lost.png"),
        ({"input": "{folder}/input", "index": "lost"}, "lost"),
        ({"input": "{folder}/input", "index": "a", "reference": "b"}, "both index= and reference="),
        (
            {
                "input": "{folder}/input",
                "weights": "{folder}/backbone",
                "reference": "{folder}/input/odd.png",
            },
            "branch",
        ),
        ({"input": "{folder}/input", "device": "abacus"}, "abacus"),
        ({"input": "{folder}/input", "osediff_weights": "lost.pkl"}, "OSEDiff weights lost.pkl"),
        ({"input": "{folder}/input", "color_fix": "nofix"}, "color_fix='nofix' is unknown"),
        ({"input": "{folder}/input", "process_size": "2"}, "process_size=2 is below scale=4"),
        ({}, "missing key: input"),
    ],
)
def test_mistakes_are_one_line(folder, keys, message):
    keys = {key: value.format(folder=folder) for key, value in keys.items()}
    done = infer(folder, **keys)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert not (folder / "output").exists()


def test_typo_is_an_error(folder):
    done = infer(folder, input=folder / "input", indx=folder / "index")
    assert done.returncode != 0
    assert "indx" in done.stderr
