"""The demo's figures: what is read from logs and results."""

import importlib.util
import json
import re
import subprocess

import pytest
import torch

from rasr.image_io import read_image, write_png
from tests.helpers import REPOSITORY


@pytest.fixture(scope="module")
def compare():
    spec = importlib.util.spec_from_file_location("compare", REPOSITORY / "data" / "demo" / "compare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_logs_of_all_starts_are_joined_in_order(compare, tmp_path):
    logs = {
        0: "step,val/psnr,train/loss_total\n0,10.0,\n1,,0.5\n",
        2: "step,train/loss_total\n3,0.3\n",
        10: "step\n4\n",
    }
    for version, text in logs.items():
        (tmp_path / "logs" / f"version_{version}").mkdir(parents=True)
        (tmp_path / "logs" / f"version_{version}" / "metrics.csv").write_text(text)
    assert compare.logged(tmp_path, "train/loss_total") == [0.5, 0.3]
    assert compare.logged(tmp_path, "val/psnr") == [10.0]


def test_mean_ends(compare):
    assert compare.mean_ends([float(i) for i in range(20)]) == (0.5, 18.5)
    assert compare.mean_ends([3.0]) == (3.0, 3.0)


def test_retrieval_accuracy_stands_beside_chance(compare, tmp_path):
    for name, count in {"cat": 3, "dog": 1}.items():
        for n in range(count):
            write_png(torch.rand(3, 8, 8), tmp_path / "data" / "database" / name / f"{n}.png")
    records = {
        compare.Path("cat/a.png"): {"reference": "cat/0.png"},
        compare.Path("dog/b.png"): {"reference": "cat/1.png"},
    }
    # A random pick is a cat 3 times of 4.
    assert compare.retrieval_accuracy(tmp_path / "data", records) == {"top1": 0.5, "chance": 0.5}


def test_bicubic_is_four_times_as_large(compare, tmp_path):
    write_png(torch.full((3, 5, 7), 0.5), tmp_path / "data" / "lr" / "cat" / "a.png")
    compare.write_bicubic(tmp_path, tmp_path / "data")
    assert read_image(tmp_path / "bicubic" / "cat" / "a.png").shape == (3, 20, 28)


@pytest.fixture
def results(tmp_path):
    """What the demo's other steps leave, for one photograph, with the training of `make demo-train`."""
    name = "cat/a.png"
    for path, side in {"data/lr": 8, "data/test": 32, "data/database": 32}.items():
        write_png(torch.rand(3, side, side), tmp_path / path / name)
    for psnr, method in enumerate(("bicubic", "untrained", "without", "with"), start=20):
        output = tmp_path / "out" / method / name
        write_png(torch.rand(3, 32, 32), output)
        record = {"output": str(output), "reference": name, "score": 0.9, "seconds": 0.5}
        (tmp_path / "out" / method / "results.jsonl").write_text(json.dumps(record) + "\n")
        scores = {"psnr": psnr, "ssim": 0.5}
        (tmp_path / "out" / f"metrics_{method}").mkdir()
        (tmp_path / "out" / f"metrics_{method}" / "metrics.json").write_text(
            json.dumps({"mean": scores, "per_image": {"cat/a": scores}})
        )
    for run in ("backbone", "rasr"):
        logs = tmp_path / "out" / run / "logs" / "version_0"
        logs.mkdir(parents=True)
        (logs / "metrics.csv").write_text("val/psnr,train/loss_total\n10.0,0.5\n12.0,0.25\n")
    return tmp_path


def test_summary_of_the_demo_tells_of_no_training(compare, results):
    compare.write_summary(results / "out", results / "data")
    summary = json.loads((results / "out" / "metrics.json").read_text())
    assert list(summary["methods"]) == ["bicubic", "without", "with"]
    assert summary["methods"]["with"]["psnr"] == 23 and summary["retrieval"] == {"top1": 1, "chance": 1}
    assert not {"training_loss", "validation_psnr"} & summary.keys()
    assert (results / "out" / "panel.png").is_file()


def test_summary_of_the_training_demo(compare, results):
    compare.write_summary(results / "out", results / "data", trained=True)
    summary = json.loads((results / "out" / "metrics.json").read_text())
    assert summary["methods"]["untrained"]["psnr"] == 21
    assert summary["training_loss"] == {"backbone": [0.5, 0.25], "rasr": [0.5, 0.25]}
    assert summary["validation_psnr"]["rasr"] == [10.0, 12.0]


def test_make_demo_trains_nothing_and_takes_the_shipped_weights():
    steps = {
        target: subprocess.run(
            ["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout
        for target in ("demo-steps", "demo-train")
    }
    assert "infer.py" in steps["demo-steps"] and "data/demo/prepare.py" in steps["demo-steps"]
    assert "train.py" not in steps["demo-steps"] and "weights=" not in steps["demo-steps"]
    assert steps["demo-train"].count("train.py experiment=") == 2
    for target, folder in (("demo-steps", "outputs/demo/"), ("demo-train", "outputs/demo_train/")):
        outputs = re.findall(r"infer\.py .*?output=(\S+)", steps[target].replace("\\\n", " "))
        assert outputs and all(output.startswith(folder) for output in outputs)
