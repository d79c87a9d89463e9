"""The demo's figures: what is read from results, and what is said of them."""

import csv
import json
import re
import subprocess

import pytest
import torch

from rasr.drawing.provenance import draw_provenance
from rasr.errors import RasrError
from rasr.fusion.base import Provenance
from rasr.image_io import read_image, write_png
from tests.helpers import REPOSITORY, import_demo

# name: scene, kind, degradation, PSNR without, wrong, retrieved, right
PAIRS = {
    "a": ("cat", "real", "mild", 20.0, 19.5, 21.0, 21.0),
    "b": ("dog", "made", "realesrgan", 20.0, 20.0, 20.0, 23.0),
    "c": ("cow", "made", "mild", 20.0, 20.0, 19.0, 19.0),
}
RUNS = ("without", "wrong", "retrieved", "right")


@pytest.fixture(scope="module")
def compare():
    with import_demo("compare") as module:
        yield module


@pytest.fixture
def results(tmp_path):
    """What the demo's other steps leave, for three small photographs; b's retrieved reference is c's."""
    data, out = tmp_path / "data", tmp_path / "out"
    figures = {run: {} for run in ("bicubic", *RUNS)}
    lines = []
    for name, (scene, kind, degradation, *psnr) in PAIRS.items():
        write_png(torch.rand(3, 80, 72), data / "lr" / f"{name}.png")
        write_png(torch.rand(3, 320, 288), data / "test" / f"{name}.png")
        write_png(torch.rand(3, 64, 64), data / "database" / scene / "view.png")
        write_png(torch.rand(3, 320, 288), out / "metrics" / "bicubic" / "sr" / f"{name}.png")
        figures["bicubic"][name] = {"psnr": 18.0, "ssim": 0.5}
        for run, value in zip(RUNS, psnr, strict=True):
            write_png(torch.rand(3, 320, 288), out / run / f"{name}.png")
            figures[run][name] = {"psnr": value, "ssim": 0.5}
        lines.append([name, scene, kind, degradation, f"{scene}/view.png", "cow/view.png"])
    for run, by_name in figures.items():
        (out / "metrics" / run).mkdir(exist_ok=True)
        (out / "metrics" / run / "metrics.json").write_text(json.dumps({"per_image": by_name}))
    for run in RUNS:
        records = []
        for name, (scene, *_) in PAIRS.items():
            record = {"output": f"{run}/{name}.png", "seconds": 0.5, "reference": None}
            if run == "retrieved":
                scene = "cow" if name == "b" else scene
                record |= {"reference": f"{scene}/view.png", "score": 0.9}
            records.append(json.dumps(record))
        (out / run / "results.jsonl").write_text("\n".join(records))
    with (data / "pairs.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "scene", "kind", "degradation", "reference", "wrong"])
        writer.writerows(lines)
    return tmp_path


def test_the_summary_tells_what_a_reference_brings_in_every_group(compare, results, caplog):
    with caplog.at_level("INFO"):
        compare.write_summary(results / "out", results / "data")
    text = caplog.messages
    start = text.index("right minus wrong: +1.17 dB, better on 2 of 3")
    assert text[start + 1 :] == [
        "  real pairs: +1.50 dB, better on 1 of 1",
        "  made views: +1.00 dB, better on 1 of 2",
        "  mild: +0.25 dB, better on 1 of 2",
        "  realesrgan: +3.00 dB, better on 1 of 1",
        f"figures: {results / 'out' / 'metrics.json'}",
        f"picture: {results / 'out' / 'panel.png'}",
    ]
    assert "right reference     PSNR  21.00 dB   SSIM 0.5000" in text
    assert "wrong minus without: -0.17 dB, better on 0 of 3" in text
    assert "retrieval: the right scene for 2 of 3, by chance 1.0" in text
    assert not any("share of the area" in line for line in text)  # no run measured it
    summary = json.loads((results / "out" / "metrics.json").read_text())
    assert summary["groups"]["mild"]["differences"]["right minus wrong"] == {"psnr": 0.25, "wins": 1}
    assert summary["retrieval"] == {"right": 2, "images": 3, "chance": 1.0}
    assert summary["restored_share"] == {}


def rows_of(compare, results):
    out, data = results / "out", results / "data"
    pairs = compare.read_pairs(data)
    records = {run: compare.read_records(out / run) for run in RUNS}
    return compare.panel_rows(out, data, pairs, compare.read_scores(out, pairs), records)


def test_the_panel_says_what_each_row_is(compare, results):
    rows = rows_of(compare, results)
    assert [row[0].caption for row in rows] == [
        "a: real pair, mild",
        "b: made view, realesrgan",
        "c: made view, mild",
    ]
    assert [cell.label for cell in rows[0]] == [
        *("LR, and the detail shown", "bicubic", "without reference", "wrong reference"),
        *("right reference", "truth", "the right reference"),
    ]
    assert rows[1][3].caption == "20.00 dB (cow)"
    assert [row[-1].caption for row in rows[:2]] == [
        "found, cosine 0.90",
        "not found, but cow, cosine 0.90",
    ]


def test_provenance_and_its_share_get_a_column_where_they_were_written(compare, results):
    right = results / "out" / "right"
    place = torch.full((1, 2, 40, 36), 0.5)
    strength = torch.cat([torch.zeros(1, 20, 36), torch.ones(1, 20, 36)], 1)
    provenance = Provenance(strength, torch.zeros(1, 40, 36, dtype=torch.int64), place)
    for name in PAIRS:
        sr = torch.full((3, 320, 288), 0.5)
        draw_provenance(right / "provenance" / f"{name}.png", sr, provenance, [torch.rand(3, 64, 64)])
    records = [json.loads(line) | {"restored_share": 0.5} for line in (right / "results.jsonl").open()]
    (right / "results.jsonl").write_text("\n".join(map(json.dumps, records)))
    cell = rows_of(compare, results)[0][-1]
    assert cell.caption == "50 % from the reference"
    # The map alone, to its edges: gray above, one tint below, no white of the strip's paper.
    assert cell.image.shape == (3, 512, 461)
    colourful = cell.image.amax(0) - cell.image.amin(0)
    assert colourful[:240].max() < 0.02 and colourful[270:].min() > 0.05
    assert cell.image.amin(0).max() < 0.9


def test_the_detail_is_where_bicubic_errs_most(compare):
    truth = torch.zeros(3, 512, 512)
    truth[:, 300:310, 20:30] = 1
    top, left = compare.worst_window(torch.zeros_like(truth), truth)
    assert top <= 300 and 310 <= top + 256 <= 512 and left <= 20
    framed = compare.frame_window(torch.zeros(3, 128, 128), 256, 0)
    assert framed.shape == (3, 512, 512) and framed[0].sum() == 256**2 - 244**2


def test_a_missing_figure_is_one_line(compare, results):
    (results / "out" / "metrics" / "right" / "metrics.json").write_text('{"per_image": {"a": {}}}')
    with pytest.raises(RasrError, match="no figures of b, c; run make demo again"):
        compare.write_summary(results / "out", results / "data")


def test_make_demo_trains_nothing_and_takes_the_shipped_weights():
    steps = {
        target: subprocess.run(
            ["make", "-n", target], cwd=REPOSITORY, capture_output=True, text=True, check=True
        ).stdout.replace("\\\n", " ")
        for target in ("demo-steps", "demo-train")
    }
    assert "train.py" not in steps["demo-steps"] and "weights=" not in steps["demo-steps"]
    assert steps["demo-train"].count(" train.py experiment=") == 2
    assert "data/demo/prepare_train.py" in steps["demo-train"]
    runs = re.findall(r"infer\.py .*?output=outputs/demo/(\S+)(.*)", steps["demo-steps"])
    assert {run: keys.strip() for run, keys in runs} == {
        "without": "",
        "wrong": "reference=outputs/demo/pairs/wrong kept=outputs/demo/pairs.kept",
        "retrieved": "index=outputs/demo/pairs.index kept=outputs/demo/pairs.kept",
        "right": "reference=outputs/demo/pairs/right kept=outputs/demo/pairs.kept provenance=true",
    }
    assert all(f"+folders.{run}=outputs/demo/{run}" in steps["demo-steps"] for run in RUNS)
    outputs = re.findall(r"infer\.py .*?output=(\S+)", steps["demo-train"])
    assert len(outputs) == 3 and all(output.startswith("outputs/demo_train/") for output in outputs)


def test_the_pictures_are_as_large_as_they_are_read(compare, results):
    compare.write_summary(results / "out", results / "data")
    width = 2 * 20 + 7 * 256 + 6 * 10  # margins, cells, gaps
    assert read_image(results / "out" / "panel.png").shape[2] == width
