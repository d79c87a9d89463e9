"""The papers' tables: their figures stand in conf/options/table.yaml, ours come from folders."""

import json
from itertools import product
from pathlib import Path

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir

from rasr.config.options import read_options
from rasr.errors import RasrError
from rasr.evaluation import evaluate_folders, fill_table, to_markdown
from rasr.evaluation.paper_table import check_table
from rasr.evaluation.tables import ranks
from rasr.image_io import write_png
from tests.helpers import REPOSITORY

TABLES = read_options(REPOSITORY / "conf" / "options" / "table.yaml")


@pytest.fixture
def table(tmp_path):
    for name in ("a", "b"):
        write_png(torch.rand(3, 16, 16), tmp_path / "sets" / "one" / "gt" / f"{name}.png")
        for method in ("m1", "m2"):
            write_png(torch.rand(3, 16, 16), tmp_path / "results" / "one" / method / f"{name}.png")
    sets = {
        key: {"title": key.title(), "gt": str(tmp_path / "sets" / key / "gt"), "lq": "lq"}
        for key in ("one", "two")
    }
    rows = {
        key: {"label": key.upper(), "paper": {"one": [20.0, 300.0], "two": [21.0, None]}}
        for key in ("m1", "m2", "m3")
    }
    return {
        "name": "t",
        "title": "Table",
        "how": "do it",
        "sets": sets,
        "metrics": ["psnr", "parameters"],
        "rows": rows,
    }


def fill(table, tmp_path, **options):
    def evaluate(set_key, key, folder):
        return evaluate_folders(folder, table["sets"][set_key]["gt"], metrics=["psnr"])

    return fill_table(table, tmp_path / "results", evaluate, **options)


def test_ours_stand_beside_the_papers(table, tmp_path):
    (tmp_path / "results" / "one" / "m2" / "complexity.json").write_text(json.dumps({"parameters": 12.8}))
    filled, reports = fill(table, tmp_path)
    assert [column.group for column in filled.columns] == ["One", "", "Two", ""]
    assert set(reports) == {("one", "m1"), ("one", "m2")}
    first, second, third = filled.rows
    assert first.values == [reports["one", "m1"]["mean"]["psnr"], None, None, None]
    assert second.values[1] == 12.8
    assert third.values == [None] * 4 and third.published == [20.0, 300.0, 21.0, None]
    assert "<sub>20.00</sub>" in to_markdown(filled)


def test_what_is_missing_is_said(table, tmp_path):
    filled, _ = fill(table, tmp_path)
    gt = tmp_path / "sets" / "two" / "gt"
    one, absent_gt, two = filled.notes[-3:]
    assert one == f"One: no figures of M3 at {tmp_path / 'results' / 'one' / 'm3'}; do it"
    assert absent_gt.startswith(
        f"Two: no ground truth at {gt}; make the test set by python -m rasr.tools degrade"
    )
    assert two.startswith("Two: no figures of M1 at ") and "M2 at" in two


def test_own_folders_and_produced_ones_go_first(table, tmp_path):
    for folder in ("own", "produced"):
        for name in ("a", "b"):
            write_png(torch.rand(3, 16, 16), tmp_path / folder / f"{name}.png")
    table["rows"]["m1"]["folder"] = str(tmp_path / "own")
    _, reports = fill(table, tmp_path, produced={("one", "m2"): tmp_path / "produced"})
    assert reports["one", "m1"]["files"]["a"]["sr"] == str(tmp_path / "own" / "a.png")
    assert reports["one", "m2"]["files"]["a"]["sr"] == str(tmp_path / "produced" / "a.png")


def test_a_spread_is_half_the_range_of_the_trials(table, tmp_path):
    for trial in ("0", "1", "2"):
        for name in ("a", "b"):
            write_png(torch.rand(3, 16, 16), tmp_path / "results" / "one" / "m3" / trial / f"{name}.png")
    table["rows"]["m3"]["is_spread"], table["digits"] = True, 3
    filled, reports = fill(table, tmp_path)
    gt = tmp_path / "sets" / "one" / "gt"
    folders = [tmp_path / "results" / "one" / "m3" / trial for trial in ("0", "1", "2")]
    means = [evaluate_folders(folder, gt, metrics=["psnr"])["mean"]["psnr"] for folder in folders]
    assert filled.rows[2].values[0] == pytest.approx((max(means) - min(means)) / 2)
    assert ("one", "m3") not in reports and [column.digits for column in filled.columns] == [3] * 4
    filled.rows[1].values[0] = None
    assert [marks[0] for marks in ranks(filled)] == [0, 0, 0]  # m1 alone: a spread is not second best
    table["rows"]["m3"]["folder"] = str(folders[0])
    with pytest.raises(RasrError, match="a spread needs two trials or more"):
        fill(table, tmp_path)


def test_wrong_tables_are_refused(table):
    table["rows"]["m3"]["paper"]["one"] = [1.0]
    with pytest.raises(RasrError, match="table t: row m3 has 1 figures of one, not 2"):
        check_table(table)
    table["metrics"] = ["psnrr"]
    with pytest.raises(RasrError, match="table t: unknown metric psnrr"):
        check_table(table)


@pytest.mark.parametrize("name", TABLES)
def test_shipped_tables_are_whole(name):
    table = TABLES[name]["table"]
    check_table(table)
    assert table["name"] == name and TABLES[name]["output"] == f"outputs/tables/{name}" and table["how"]


# Read off the papers: table, row, set, figures in the order of the file's metrics.
SAMPLES = [
    ("rasr1", "rasr", "rasr_flickr30", [23.67, 0.5687, 0.3273, 0.1743, 56.83, 4.1139, 72.33, 0.7706]),
    ("rasr1", "osediff", "rasr_flickr30", [23.29, 0.5624, 0.3404, 0.1915, 65.59, 4.2009, 71.35, 0.7572]),
    ("rasr2", "rasr", "wr_sr", [21.92, 0.5761, 0.3254, 57.82, 3.6509]),
    ("rasr3", "none", "rasr_flickr30", [23.65, 0.3461, 75.60, 0.7436]),
    ("rasr4", "mse_lpips_gan", "rasr_flickr30", [23.70, 56.79, 4.1848, 0.7588]),
    ("rasr5", "vgg16", "rasr_flickr30", [23.61, 0.3338, 59.70, 0.7676]),
    ("refir1", "seesr_refir", "wr_sr", [21.86, 0.5664, 0.3460, 3.9089, 61.22]),
    ("refir2", "supir_refir", "realphoto60", [3.4593, 60.49, 0.5722]),
    ("refir4", "gate", "cufed5", [19.12, 0.4724, 4.2275, 153.05]),  # "4.36 FID drop" without alignment
    ("refir10", "supir_refir_spread", "wr_sr", [0.002, 0.0003, 0.0006, 0.007, 0.3]),
    ("refir9", "concat", "cufed5", [18.89, 0.4691, 4.19, 156.03]),
]


@pytest.mark.parametrize(("name", "row", "set_key", "figures"), SAMPLES)
def test_shipped_figures_are_the_papers(name, row, set_key, figures):
    table = TABLES[name]["table"]
    assert table["rows"][row]["paper"][set_key] == figures


def test_there_is_an_entry_for_every_table():
    assert {f"rasr{n}" for n in range(1, 6)} | {f"refir{n}" for n in range(1, 11)} <= TABLES.keys()


SWEEPS = [
    ("rasr3", "table3", set()),
    ("rasr5", "table5", set()),
    ("refir4", "refir_components", {"outputs/refir_reference_kinds/none"}),
    ("refir5", "refir_positions", {"outputs/refir_reference_kinds/none"}),
    ("refir6", "refir_reference_kinds", {"outputs/refir_reference_kinds/hq"}),
    ("refir7", "refir_fallbacks", {"outputs/refir_fallbacks/refir"}),
    ("refir8", "refir_references", {"outputs/refir_reference_kinds/none"}),
    ("refir9", "refir_designs", set()),
]


@pytest.mark.parametrize(("name", "experiment", "others"), SWEEPS)
def test_ablations_read_what_their_experiment_writes(name, experiment, others):
    """The folders of the rows against the outputs of the sweep, and of what else the table names in `how`."""
    body = yaml.safe_load((REPOSITORY / "conf" / "experiment" / f"{experiment}.yaml").read_text("utf-8"))
    table = TABLES[name]["table"]
    sweep = {key: str(values).split(",") for key, values in body["hydra"]["sweeper"]["params"].items()}
    written = set()
    with initialize_config_dir(version_base="1.3", config_dir=str(REPOSITORY / "conf")):
        for values in product(*sweep.values()):
            keys = [f"{key}={value}" for key, value in zip(sweep, values, strict=True)]
            cfg = compose("infer", [f"experiment={experiment}", "input=lq", "weights=w", *keys])
            written.add(cfg.output)
    assert {row["folder"] for row in table["rows"].values()} <= written | others
    for folder in others:
        assert Path(folder).parent.name in table["how"] and f"experiment={experiment}" in table["how"]
