"""scripts/make_tiny.py: the same folder for the same seed, readable as a backbone."""

import runpy
import sys
from pathlib import Path

import pytest
import torch

from rasr.models import OneStepBackbone, make_tiny_backbone

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "make_tiny.py"


@pytest.mark.parametrize("seed", [0, 3])
def test_the_folder_holds_the_seeds_backbone(monkeypatch, tmp_path, seed):
    monkeypatch.setattr(sys, "argv", ["make_tiny.py", str(tmp_path / "tiny"), "--seed", str(seed)])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    found = OneStepBackbone.from_pretrained(tmp_path / "tiny").unet.state_dict()
    expected = make_tiny_backbone(seed).unet.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
