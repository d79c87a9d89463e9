"""`python evaluate.py`, as a user types it."""

import json

import pytest
import torch

from rasr.image_io import write_png
from tests.helpers import run_entry


@pytest.fixture
def evaluate(tmp_path):
    """Run the command in an empty folder beside `sr/` and `gt/` with the images a and b."""
    for name in ("a", "b"):
        for folder in ("sr", "gt"):
            write_png(torch.rand(3, 16, 20), tmp_path / folder / f"{name}.png")

    def run(*arguments):
        return run_entry("evaluate.py", *arguments, cwd=tmp_path)

    run.folder = tmp_path
    return run


def test_writes_exactly_its_files(evaluate):
    result = evaluate("sr=sr", "gt=gt", "output=out", "metrics=[psnr,ssim]")
    assert result.returncode == 0, result.stderr
    files = {
        path.relative_to(evaluate.folder).as_posix() for path in evaluate.folder.rglob("*") if path.is_file()
    }
    assert files == {"sr/a.png", "sr/b.png", "gt/a.png", "gt/b.png", "out/metrics.json", "out/metrics.csv"}
    report = json.loads((evaluate.folder / "out" / "metrics.json").read_text())
    assert report["count"] == 2
    assert set(report["mean"]) == {"psnr", "ssim"}
    assert set(report["per_image"]) == {"a", "b"}
    assert f"psnr {report['mean']['psnr']:.4f}" in result.stdout
    assert "2/2" in result.stderr  # the progress bar


def test_strict_and_metrics_can_be_changed(evaluate):
    (evaluate.folder / "sr" / "b.png").unlink()
    failed = evaluate("sr=sr", "gt=gt", "output=out", "metrics=[psnr]")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: missing in sr gt/b.png; ")
    assert not (evaluate.folder / "out").exists()
    result = evaluate("sr=sr", "gt=gt", "output=out", "metrics=[psnr]", "strict=false")
    assert result.returncode == 0
    assert "left out: missing in sr gt/b.png" in result.stdout
    report = json.loads((evaluate.folder / "out" / "metrics.json").read_text())
    assert list(report["per_image"]) == ["a"]
    assert list(report["mean"]) == ["psnr"]


def test_mistakes_are_told_in_one_line(evaluate):
    result = evaluate("sr=sr", "gt=gt", "output=out", "metrics=[fid]")
    assert (result.returncode, result.stderr) == (2, "error: unknown metric: fid; known are psnr, ssim\n")


def test_help_names_every_key(evaluate):
    result = evaluate("--help")
    assert result.returncode == 0
    for key in ("sr=???", "gt=???", "output=???", "metrics=[psnr,ssim]", "strict=true", "Examples:"):
        assert key in result.stdout
