"""A degradation is one class and one yaml; here both lie outside the package."""

import json

import pytest
import torch
from PIL import Image

from rasr.image_io import read_image
from tests.helpers import run_entry, run_tool, write_training_set

SIDE = 64

MODULE = """
from dataclasses import dataclass

import torch

from rasr.seeding import SampleRandom
from rasr.degradation import Degradation


@dataclass(frozen=True)
class Fade:
    share: float


class Fading(Degradation):
    def __init__(self, *, scale, most=0.5):
        super().__init__("fading", scale=scale)
        self.most = most

    def parameters_of(self, seed):
        return Fade(SampleRandom(seed).uniform(0, self.most))

    def forward(self, gt, *, seeds):
        small = torch.nn.functional.avg_pool2d(gt, self.scale)
        shares = [self.parameters_of(seed).share for seed in seeds.tolist()]
        kept = 1 - torch.tensor(shares, device=gt.device)[:, None, None, None]
        return (small * kept * 255).round() / 255
"""

CONFIG = "_target_: fading.Fading\nscale: ${scale}\nmost: 0.5\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Pictures with references, and a degradation of the user's own: `fading.py` and `conf/degradation/`."""
    write_training_set(tmp_path, count=2, side=SIDE)
    (tmp_path / "fading.py").write_text(MODULE)
    (tmp_path / "conf" / "degradation").mkdir(parents=True)
    (tmp_path / "conf" / "degradation" / "fading.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def keys_of(folder):
    return [f"hydra.searchpath=[file://{folder}/conf]", "degradation=fading"]


def record(folder):
    lines = (folder / "set" / "parameters.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_makes_a_test_set_with_a_record(folder):
    keys = ["input=references", "output=set", "seed=1"]
    done = run_tool("degrade", *keys, *keys_of(folder), cwd=folder)
    assert done.returncode == 0, done.stderr
    assert len(record(folder)) == 2
    for entry in record(folder):
        gt, lq = read_image(folder / "set" / entry["gt"]), read_image(folder / "set" / entry["lq"])
        expected = torch.nn.functional.avg_pool2d(gt, 4) * (1 - entry["parameters"]["share"])
        torch.testing.assert_close(lq, expected, atol=1 / 255, rtol=0)
        assert entry["preset"] == "fading" and entry["scale"] == 4

    # The same again is kept; what has other parameters is made anew; what is another degradation is refused.
    before = {path: path.stat().st_mtime_ns for path in (folder / "set").rglob("*.png")}
    assert run_tool("degrade", *keys, *keys_of(folder), cwd=folder).returncode == 0
    assert {path: path.stat().st_mtime_ns for path in (folder / "set").rglob("*.png")} == before
    done = run_tool("degrade", *keys, *keys_of(folder), "degradation.most=0.1", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert all(entry["parameters"]["share"] < 0.1 for entry in record(folder))
    other = run_tool("degrade", *keys, cwd=folder)
    assert (other.returncode, "with other preset" in other.stderr) == (2, True)
    wrong = run_tool("degrade", *keys, *keys_of(folder), "degradation.scale=0", cwd=folder)
    assert (wrong.returncode, "degradation.scale=0 is not a whole number" in wrong.stderr) == (2, True)


def test_previews_and_trains(folder):
    keys = [*keys_of(folder), "data.train=manifest.csv", f"gt_size={SIDE}"]
    done = run_tool("preview", *keys, "output=sheet.png", "rows=2", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert Image.open(folder / "sheet.png").width > 3 * SIDE

    done = run_entry(
        "train.py",
        "debug=default",
        *keys,
        f"model.backbone={folder}/backbone",
        "data.val=null",
        "data.batch_size=2",
        "trainer.max_steps=1",
        f"paths.output_dir={folder}/run",
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    assert "_target_: fading.Fading" in (folder / "run" / "config.yaml").read_text()
    assert (folder / "run" / "weights.safetensors").is_file()
