"""A fusion is one file and one yaml; here both lie outside the package."""

import json
import sys

import pytest
import torch

from rasr.fusion.registry import FUSIONS
from rasr.image_io import read_image, write_png
from rasr.models import RASRNet
from tests.helpers import run_entry, write_training_set

SIDE = 64

MODULE = '''
import torch

from rasr.fusion.base import Fused, ReferenceFusion
from rasr.fusion.registry import register_fusion


@register_fusion
class MeanColour(ReferenceFusion):
    """Moves every photograph towards the mean colour of its references."""

    name = "mean_colour"
    keeps_any_size = True
    acts_on_image = True

    def __init__(self, start):
        super().__init__()
        self.amount = torch.nn.Parameter(torch.tensor(float(start)))
        self.start = start

    @classmethod
    def from_backbone(cls, backbone, *, scale, start=0.3):
        return cls(start)

    def settings(self):
        return {"start": self.start}

    def fingerprinted(self, backbone):
        return []

    def keep(self, backbone, ref, use=None):
        return {"mean": ref.mean((-2, -1), keepdim=True)}

    def fuse(self, backbone, restored, prepared, strength):
        mean = sum(kept["mean"] for kept in prepared) / len(prepared)
        return Fused((restored.sr + strength * self.amount * (mean - restored.sr)).clamp(0, 1))
'''

CONFIG = """\
defaults:
  - tiny
  - _self_
fusion: mean_colour
fusion_settings:
  start: 0.4
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A training set, and a fusion of the user's own: `mean_colour.py` and `conf/model/mean_colour.yaml`."""
    write_training_set(tmp_path, count=2, side=SIDE)
    (tmp_path / "mean_colour.py").write_text(MODULE)
    (tmp_path / "conf" / "model").mkdir(parents=True)
    (tmp_path / "conf" / "model" / "mean_colour.yaml").write_text(CONFIG)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RASR_PLUGINS", "mean_colour")
    monkeypatch.setattr("rasr.fusion.registry.FUSIONS", dict(FUSIONS))
    monkeypatch.setitem(sys.modules, "mean_colour", None)
    monkeypatch.delitem(sys.modules, "mean_colour")
    return tmp_path


def run(folder, script, *keys):
    done = run_entry(script, *keys, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def restore(folder, output, *keys):
    run(folder, "infer.py", "input=lq.png", f"output={output}", "device=cpu", "color_fix=none", *keys)
    record = json.loads((folder / output / "results.jsonl").read_text())
    return read_image(folder / output / "lq.png"), record


def test_it_trains_keeps_restores_publishes_and_reloads(folder):
    # 1. trains
    run(
        folder,
        "train.py",
        "debug=default",
        f"hydra.searchpath=[file://{folder}/conf]",
        "model=mean_colour",
        f"model.backbone={folder}/backbone",
        f"gt_size={SIDE}",
        "data.train=manifest.csv",
        "data.val=null",
        "data.batch_size=2",
        "paths.output_dir=run",
    )
    weights = "weights=run/weights.safetensors"

    # 2. keeps
    out = run(
        folder,
        "index.py",
        "database=references",
        "index=index",
        "encoder=color_gradient",
        "kept=kept",
        weights,
    )
    assert "2 references kept, 0 known" in out

    # 3. restores: with the reference, with the kept one, with several, and at no strength
    write_png(torch.rand(3, 16, 16), folder / "lq.png")
    without, _ = restore(folder, "without", weights)
    fused, _ = restore(folder, "with", weights, "index=index")
    assert (fused - without).abs().max() > 1e-2
    kept, record = restore(folder, "with_kept", weights, "index=index", "kept=kept")
    assert record["kept"] and torch.equal(kept, fused)
    several, record = restore(folder, "several", weights, "index=index", "references=2")
    assert len(record["references"]) == 2 and not torch.equal(several, fused)
    off, _ = restore(folder, "off", weights, "index=index", "conditioning_scale=0")
    assert torch.equal(off, without)

    # 4. publishes and reloads
    net = RASRNet.from_pretrained(folder / "run" / "weights.safetensors")
    assert net.fusion.name == "mean_colour" and net.fusion.amount != 0.4, "it has learnt"
    assert (net.save_pretrained(folder / "net", dtype=torch.float32) / "mean_colour.safetensors").is_file()
    published, _ = restore(folder, "published", "weights=net", "index=index", "kept=kept")
    assert torch.equal(published, fused)
    chosen, _ = restore(folder, "chosen", "weights=net", "fusion=mean_colour", "index=index")
    assert torch.equal(chosen, fused)


def test_without_the_plugin_one_line_says_where_it_comes_from(folder, monkeypatch):
    write_png(torch.rand(3, 16, 16), folder / "lq.png")
    monkeypatch.delenv("RASR_PLUGINS")
    done = run_entry("infer.py", "input=lq.png", "output=out", "fusion=mean_colour", cwd=folder)
    assert done.returncode == 2 and "RASR_PLUGINS" in done.stderr
    monkeypatch.setenv("RASR_PLUGINS", "not_there")
    done = run_entry("infer.py", "input=lq.png", "output=out", cwd=folder)
    assert done.returncode == 2 and "cannot import not_there" in done.stderr.splitlines()[-1]
