"""`python -m rasr.tools interpolate` as a user runs it."""

from pathlib import Path

import pytest
import torch

from rasr.models import OneStepBackbone, make_small_backbone, make_tiny_backbone
from tests.helpers import run_tool


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("backbones")
    for seed in (0, 1):
        make_tiny_backbone(seed=seed).save_pretrained(folder / str(seed))
    make_small_backbone().save_pretrained(folder / "small")
    merged = make_tiny_backbone(seed=0)
    merged.osediff_weights = "osediff.pkl"
    merged.save_pretrained(folder / "osediff")
    (folder / "file").write_text("")
    return folder


def mix(first, second, weight, output):
    keys = {"first": first, "second": second, "weight": weight, "output": output}
    return run_tool("interpolate", *(f"{key}={value}" for key, value in keys.items()))


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_every_tensor_lies_between(folder, tmp_path, weight):
    done = mix(folder / "0", folder / "1", weight, tmp_path / "mixed")
    assert done.returncode == 0, done.stderr
    first, second, found = (
        OneStepBackbone.from_pretrained(path) for path in (folder / "0", folder / "1", tmp_path / "mixed")
    )
    for part in ("vae", "unet"):
        a, b, mixed = (getattr(net, part).state_dict() for net in (first, second, found))
        assert any(not torch.equal(a[name], b[name]) for name in a)
        for name in a:
            torch.testing.assert_close(mixed[name], (1 - weight) * a[name] + weight * b[name])


@pytest.mark.parametrize(
    ("first", "second", "weight", "output", "message"),
    [
        ("0", "small", 0.5, "mixed", "its vae is built otherwise (block_out_channels)"),
        ("0", "1", 1.5, "mixed", "weight=1.5 is above 1; give a number, 0 to 1"),
        ("0", "1", "nan", "mixed", "weight=nan is not a finite number"),
        ("lost/er/path", "1", 0.5, "mixed", "there is no backbone directory"),
        ("0", "1", 0.5, "1", "1 is one of the two; give another folder"),
        ("0", "osediff", 0.5, "mixed", "hold other OSEDiff weights (None, osediff.pkl)"),
        ("0", "1", 0.5, "file", "file is a file; give the name of a folder"),
    ],
)
def test_mistakes_are_one_line(folder, first, second, weight, output, message):
    paths = (folder / first, folder / second)
    done = mix(*paths, weight, folder / output)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert message in line and "Traceback" not in done.stderr and "usage:" not in done.stderr
    assert not (folder / "mixed").exists()
