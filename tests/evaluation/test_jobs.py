"""The jobs as functions, and which keys each of them reads."""

import json

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import BicubicBaseline, EvaluationProtocol, evaluate_folders
from rasr.evaluation.jobs import JOBS, Measuring, Page, compare, remake_page, score
from rasr.image_io import write_png

MEASURING = {"metrics", "protocol", "strict", "batch_size", "device"}
PAGE = {"report_images", "report_crop", "references", "wandb"}


@pytest.fixture
def root(tmp_path):
    for name in ("a", "b"):
        write_png(torch.rand(3, 4, 5), tmp_path / "lq" / f"{name}.png")
        for folder in ("sr", "gt"):
            write_png(torch.rand(3, 16, 20), tmp_path / folder / f"{name}.png")
    return tmp_path


@pytest.mark.parametrize(
    ("job", "needed", "read"),
    [
        ("score", ["sr", "output"], {"gt", "lq"} | MEASURING | PAGE),
        (
            "compare",
            ["output"],
            {"baselines", "folders", "gt", "lq", "pair", "weights", "index"} | MEASURING | PAGE,
        ),
        (
            "table",
            ["table", "output"],
            {"baselines", "folders", "results", "testsets", "weights", "index"} | MEASURING | PAGE,
        ),
        ("complexity", ["complexity", "output"], {"size", "repeats", "device", "weights", "index"}),
        ("report", ["output"], {"report_images", "report_crop"}),
    ],
)
def test_a_job_has_the_keys_of_its_parameters(compose, job, needed, read):
    assert JOBS[job].needed == needed
    assert JOBS[job].read == read | set(needed)
    keys = set(compose(config_name="evaluate")) | {"baselines", "table", "complexity"}
    assert JOBS[job].read <= keys


def test_every_key_is_read_by_a_job(compose):
    read = set().union(*(job.read for job in JOBS.values()))
    assert set(compose(config_name="evaluate")) - {"job"} <= read


def test_score_is_what_evaluate_folders_gives(root):
    protocol, page = EvaluationProtocol(crop_border=2), Page(report_images=0)
    measuring = Measuring(["psnr"], protocol)
    results = score(str(root / "sr"), str(root / "out"), measuring, page, gt=str(root / "gt"))
    expected = evaluate_folders(root / "sr", root / "gt", metrics=["psnr"], protocol=protocol)
    assert results.page is None and not (root / "out" / "report.html").exists()
    assert results.table.rows[0].values == [expected["mean"]["psnr"]]
    assert json.loads((root / "out" / "metrics.json").read_text())["mean"] == expected["mean"]


def test_a_baseline_that_a_program_made_is_compared(root):
    rows = {"x4": BicubicBaseline("mine")}
    places = {"gt": str(root / "gt"), "lq": str(root / "lq")}
    results = compare(str(root / "out"), Measuring(), Page(1, 8), rows, {"sr": str(root / "sr")}, **places)
    assert [row.label for row in results.table.rows] == ["mine", "sr"]
    assert results.page == root / "out" / "report.html"
    results.page.unlink()
    remake_page(str(root / "out"), report_images=1, report_crop=8)
    assert results.page.is_file()
    with pytest.raises(RasrError, match="missing key: baselines"):
        compare(str(root / "out"), Measuring(), Page())
