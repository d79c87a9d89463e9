"""The demo's figures: what is read from logs and results."""

import importlib.util

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
    assert compare.retrieval_accuracy(tmp_path, records) == {"top1": 0.5, "chance": 0.5}


def test_bicubic_is_four_times_as_large(compare, tmp_path):
    write_png(torch.full((3, 5, 7), 0.5), tmp_path / "data" / "lr" / "cat" / "a.png")
    compare.write_bicubic(tmp_path)
    assert read_image(tmp_path / "bicubic" / "cat" / "a.png").shape == (3, 20, 28)
