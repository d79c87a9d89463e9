"""`python -m rasr.tools make_tiny`: the same folder for the same seed, readable as a backbone."""

import pytest
import torch

from rasr.models import OneStepBackbone, make_tiny_backbone
from tests.helpers import run_tool


@pytest.mark.parametrize("seed", [0, 3])
def test_the_folder_holds_the_seeds_backbone(tmp_path, seed):
    done = run_tool("make_tiny", f"output={tmp_path / 'tiny'}", f"seed={seed}")
    assert done.returncode == 0, done.stderr
    found = OneStepBackbone.from_pretrained(tmp_path / "tiny").unet.state_dict()
    expected = make_tiny_backbone(seed).unet.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_seed_is_a_whole_number(tmp_path):
    done = run_tool("make_tiny", f"output={tmp_path / 'tiny'}", "seed=x")
    assert (done.returncode, "seed=x is not a whole number" in done.stderr) == (2, True)
    assert not list(tmp_path.iterdir())
