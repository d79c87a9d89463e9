"""A baseline and a metric that stand outside the package are scored and shown like the shipped ones."""

import json

import pytest
import torch

from rasr.evaluation import METRICS, evaluate_folders
from rasr.image_io import read_image, write_png
from tests.helpers import run_entry

BASELINE = """
from rasr.image_io import list_images, read_image, write_png


class Mirror:
    needs_lq = True

    def __init__(self, label, axis):
        self.label, self.axis = label, axis

    def restore_folder(self, lq, output, device):
        for path in list_images(lq):
            write_png(read_image(path).flip(self.axis), output / path.name)
        return output
"""

METRIC = """
from rasr.evaluation import register_metric


def contrast(sr, gt, *, color):
    return sr.std(dim=(1, 2, 3))


register_metric("contrast", contrast, title="Contrast", digits=3, needs_gt=False)
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Photographs as large as their ground truth, beside a module of the user's."""
    for kind in ("lq", "gt"):
        for name in ("a", "b"):
            write_png(torch.rand(3, 16, 20), tmp_path / kind / f"{name}.png")
    monkeypatch.syspath_prepend(str(tmp_path))
    known = dict(METRICS)
    yield tmp_path
    for name in METRICS.keys() - known.keys():
        del METRICS[name]


def compare(folder, *keys):
    done = run_entry("evaluate.py", "compare", "lq=lq", "gt=gt", "output=out", *keys, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "out" / "table.json").read_text("utf-8")), done.stdout


@pytest.mark.parametrize("place", ["key", "file"])
def test_a_baseline_is_one_class_and_one_entry(folder, place):
    (folder / f"mine_{place}.py").write_text(BASELINE)
    body = f"{{_target_: mine_{place}.Mirror, label: Mirror, axis: 2}}"
    if place == "key":
        keys = [f"+baselines.mirror={body}"]
    else:
        (folder / "conf" / "baselines").mkdir(parents=True)
        (folder / "conf" / "baselines" / "mirror.yaml").write_text(f"# @package baselines.mirror\n{body}\n")
        keys = ["baselines=[bicubic,mirror]", "baselines.bicubic.scale=1", "--config-dir=conf"]
    table, printed = compare(folder, *keys)
    (row,) = [row for row in table["rows"] if row["label"] == "Mirror"]
    assert torch.equal(
        read_image(folder / "out/mirror/sr/a.png"), read_image(folder / "lq" / "a.png").flip(2)
    )
    report = evaluate_folders(folder / "out/mirror/sr", folder / "gt", metrics=["psnr", "ssim"])
    assert row["values"] == [report["mean"]["psnr"], report["mean"]["ssim"]]
    assert "| Mirror |" in printed


def test_a_metric_is_one_function_and_one_registration(folder):
    (folder / "mine_metric.py").write_text(BASELINE + METRIC)
    body = "{_target_: mine_metric.Mirror, label: Mirror, axis: 1}"
    table, printed = compare(folder, f"+baselines.mirror={body}", "metrics=[psnr,contrast]")
    assert [column["title"] for column in table["columns"]] == ["PSNR", "Contrast"]
    expected = [read_image(folder / "lq" / f"{name}.png").std().item() for name in ("a", "b")]
    assert table["rows"][0]["values"][1] == pytest.approx(sum(expected) / 2)
    assert "Contrast ↑" in printed and "Contrast" in (folder / "out" / "report.html").read_text("utf-8")
    with pytest.raises(ValueError, match="there is a metric 'psnr' already"):
        from rasr.evaluation import register_metric

        register_metric("psnr", lambda sr, gt, *, color: sr, title="", digits=1)
