"""infer.py as a user runs it: files in, files out, clear errors, nothing lost."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from rasr.data import read_rows, write_manifest
from rasr.image_io import content_hash, read_image, write_png
from rasr.models import build_rasr_net, load_rasr_net, make_tiny_backbone, save_weights
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


@pytest.mark.slow
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
    made = {record["output"]: Path(record["output"]).stat().st_mtime_ns for record in records(folder)}
    assert len(made) == 3
    shutil.copy(folder / "input" / "odd.png", tmp_path / "input" / "broken.png")
    keys = {
        "input": tmp_path / "input",
        "output": folder / "output",
        "weights": folder / "weights.safetensors",
    }
    done = run_entry("infer.py", "device=cpu", *(f"{key}={value}" for key, value in keys.items()))
    assert done.returncode == 0, done.stderr
    again = {record["output"]: Path(record["output"]).stat().st_mtime_ns for record in records(folder)}
    assert len(again) == 4 and made.items() <= again.items()  # nothing was restored twice


def test_weights_as_one_folder_and_none_at_all(folder, tmp_path, monkeypatch):
    net = load_rasr_net(folder / "weights.safetensors", merge=False)
    published = net.save_pretrained(tmp_path / "published", dtype=torch.float32)
    keys = {"input": folder / "input" / "odd.png", "index": folder / "index", "device": "cpu"}
    pictures = set()
    for number, weights in enumerate((folder / "weights.safetensors", published, None)):
        monkeypatch.setattr("rasr.models.finding.SHIPPED_WEIGHTS", published)
        given = keys | {"output": tmp_path / str(number)} | ({"weights": weights} if weights else {})
        done = run_entry("infer.py", *(f"{key}={value}" for key, value in given.items()), cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        pictures.add(content_hash(tmp_path / str(number) / "odd.png"))
    assert len(pictures) == 1
    monkeypatch.setattr("rasr.models.finding.SHIPPED_WEIGHTS", tmp_path / "none")
    done = run_entry("infer.py", f"input={keys['input']}", f"output={tmp_path / 'out'}")
    assert done.returncode == 2 and not (tmp_path / "out").exists()
    assert done.stderr.startswith("error: no weights= given") and len(done.stderr.splitlines()) == 1


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
            "without a reference fusion",
        ),
        ({"input": "{folder}/input", "device": "abacus"}, "abacus"),
        ({"input": "{folder}/input", "osediff_weights": "lost.pkl"}, "OSEDiff weights lost.pkl"),
        ({"input": "{folder}/input", "color_fix": "nofix"}, "color_fix='nofix' is unknown"),
        ({"input": "{folder}/input", "process_size": "2"}, "process_size=2 is below scale=4"),
        ({"input": "{folder}/input", "scale": "2.5"}, "scale=2.5 is not a whole number"),
        ({"input": "{folder}/input", "tile_size": "abc"}, "tile_size=abc is not a whole number"),
        ({"input": "{folder}/input", "conditioning_scale": "abc"}, "conditioning_scale=abc is not a finite"),
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


@pytest.fixture
def listed(folder, tmp_path) -> Path:
    """A manifest of three rows: lq beside a sharp image, an image alone, a photograph without references."""
    for name in ("set/lq/a.png", "set/lq/b.png", "set/sharp/a.png", "set/lq/c.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20, 20 if "lq" in name else 36), (200, 30, 30)).save(tmp_path / name)
    (tmp_path / "set/lq/a.txt").write_text("from the sidecar")
    (tmp_path / "set/lq/b.txt").write_text("b by sidecar")
    shutil.copytree(folder / "database", tmp_path / "refs")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists/test.csv").write_text(
        "image,split,prompt,references,lq\n"
        "../set/sharp/a.png,test,told by the row,../refs/red/red.png;../refs/blue/blue.png,../set/lq/a.png\n"
        "../set/lq/b.png,test,,../refs/blue/blue.png,\n"
        ",test,,,../set/lq/c.png\n"
        "../set/sharp/a.png,other,,,\n"
    )
    return tmp_path / "lists/test.csv"


def test_a_manifest_brings_photographs_prompts_and_references(folder, listed):
    done = infer(folder, input=listed)
    assert done.returncode == 0, done.stderr
    a, b, c = records(folder)
    assert [Path(record["output"]).relative_to(folder / "output").as_posix() for record in (a, b, c)] == [
        "a.png", "b.png", "c.png",
    ]  # fmt: skip
    assert read_image(a["output"]).shape == (3, 80, 80)  # of the lq, not of the image
    assert [record["reference"] and Path(record["reference"]).name for record in (a, b, c)] == [
        "red.png", "blue.png", None,
    ]  # fmt: skip
    assert [record["prompt"] for record in (a, b, c)] == ["told by the row, a red wall", "b by sidecar", ""]


def test_a_split_and_both_forms_of_a_manifest(folder, listed):
    done = infer(folder, input=listed, split="other")
    assert done.returncode == 0, done.stderr
    (record,) = records(folder)
    assert record["output"].endswith("output/a.png") and read_image(record["output"]).shape == (3, 144, 80)
    write_manifest(listed.with_suffix(".parquet"), [replace(row, root=Path()) for row in read_rows(listed)])
    assert infer(folder, input=listed.with_suffix(".parquet"), split="test").returncode == 0
    assert len(records(folder)) == 3


def test_other_sources_of_references_and_prompts_come_before_the_manifests(folder, listed):
    def first(**keys):
        done = infer(folder, input=listed, **keys)
        assert done.returncode == 0, done.stderr
        return records(folder)[0]

    assert first(index=folder / "index", category="green")["reference"] == "green/green.png"
    assert first(reference=folder / "database/blue/blue.png")["reference"].endswith("blue.png")
    assert first(reference_kind="none")["reference"] is None
    assert first(reference_kind="self")["reference"] == "self"
    assert first(prompt="none", prompt_from="lq")["prompt"] == ""
    assert first(prompt="given", **{"prompt.text": "'a cat'"}, prompt_from="lq")["prompt"] == "a cat"
    several = first(weights=folder / "backbone", method="refir", references=2)["references"]
    assert [Path(name).name for name in several] == ["red.png", "blue.png"]


def test_mistakes_in_a_manifest_are_one_line(folder, listed):
    text = listed.read_text()
    for change, message in (
        (("refs/blue/blue.png", "refs/lost.png"), "lists/../refs/lost.png: no such reference (2 in all"),
        (("../set/lq/c.png", "../set/lq/a.png"), "set/lq/a.png is listed twice"),
        ((",test,", ",train,"), "no row of split 'test'; its splits are: other, train"),
    ):
        listed.write_text(text.replace(*change))
        done = infer(folder, input=listed)
        assert done.returncode == 2 and message in done.stderr.splitlines()[-1], done.stderr
        assert not (folder / "output").exists()


def test_results_never_replace_the_photographs(folder, listed, tmp_path):
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for keys in (
        {"input": listed, "output": tmp_path / "set/lq"},
        {"input": tmp_path / "set/lq/a.png", "output": tmp_path / "set/lq"},
    ):
        done = run_entry(
            "infer.py", *(f"{key}={value}" for key, value in keys.items()), "weights=x", "device=cpu"
        )
        assert done.returncode == 2
        assert "set/lq/a.png would be written over an original; give another output=" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_folders_may_be_called_by_numbers(folder, tmp_path):
    shutil.copytree(folder / "told", tmp_path / "2024")
    keys = {"input": 2024, "output": 5, "weights": folder / "weights.safetensors", "device": "cpu"}
    done = run_entry("infer.py", *(f"{key}={value}" for key, value in keys.items()), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "5/told.png").is_file()
