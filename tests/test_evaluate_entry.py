"""`python evaluate.py`, as a user types it."""

import json
import subprocess
import sys

import pytest
import torch

from rasr.image_io import read_image, write_png
from rasr.models import build_rasr_net, make_tiny_backbone, save_weights
from rasr.retrieval import ColorGradientEncoder, build_index
from tests.helpers import REPOSITORY, evaluate_in


@pytest.fixture(autouse=True)
def _no_downloads(monkeypatch):
    monkeypatch.setattr("rasr.evaluation.toolbox.is_within_reach", lambda url: False)


@pytest.fixture
def evaluate(tmp_path):
    return evaluate_in(tmp_path)


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read(path):
    return json.loads(path.read_text("utf-8"))


TABLE = {"table.md", "table.tex", "table.csv", "table.json", "report.json"}
SCORES = {"metrics.json", "metrics.csv", "scores.jsonl"}


def test_writes_exactly_its_files(evaluate):
    result = evaluate("score", "sr=sr", "gt=gt", "output=out", "metrics=[psnr,ssim]")
    assert result.returncode == 0, result.stderr
    assert files(evaluate.folder / "out") == TABLE | SCORES | {"report.html"}
    report = read(evaluate.folder / "out" / "metrics.json")
    assert report["count"] == 2
    assert set(report["mean"]) == {"psnr", "ssim"}
    assert set(report["per_image"]) == {"a", "b"}
    assert f"psnr {report['mean']['psnr']:.4f}" in result.stdout
    assert "2/2" in result.stderr  # the progress bar
    without_page = evaluate("score", "sr=sr", "gt=gt", "output=bare", "report_images=0")
    assert without_page.returncode == 0 and files(evaluate.folder / "bare") == TABLE | SCORES


def test_strict_and_metrics_can_be_changed(evaluate):
    (evaluate.folder / "sr" / "b.png").unlink()
    failed = evaluate("score", "sr=sr", "gt=gt", "output=out", "metrics=[psnr]")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: missing in sr gt/b.png; ")
    assert not (evaluate.folder / "out").exists()
    result = evaluate("score", "sr=sr", "gt=gt", "output=out", "metrics=[psnr]", "strict=false")
    assert result.returncode == 0
    assert "left out: missing in sr gt/b.png" in result.stdout
    report = read(evaluate.folder / "out" / "metrics.json")
    assert list(report["per_image"]) == ["a"]
    assert list(report["mean"]) == ["psnr"]


def test_a_single_metric_needs_no_brackets(evaluate):
    assert evaluate("score", "sr=sr", "gt=gt", "output=out", "metrics=psnr").returncode == 0
    assert list(read(evaluate.folder / "out" / "metrics.json")["mean"]) == ["psnr"]


def test_files_that_do_not_fit_are_listed_before_anything_is_restored(evaluate):
    keys = ("compare", "gt=gt", "lq=lq", "baselines=[bicubic]", "folders={one: sr}", "output=out")
    write_png(torch.rand(3, 16, 21), evaluate.folder / "sr" / "a.png")
    result = evaluate(*keys)
    assert result.returncode == 2 and "different sizes sr/a.png and gt/a.png" in result.stderr
    write_png(torch.rand(3, 16, 20), evaluate.folder / "sr" / "a.png")
    write_png(torch.rand(3, 4, 5), evaluate.folder / "lq" / "c.png")
    result = evaluate(*keys)
    assert result.returncode == 2 and "extra in lq lq/c.png" in result.stderr
    assert not (evaluate.folder / "out").exists()
    assert evaluate(*keys, "strict=false").returncode == 0


def test_means_over_other_images_are_not_passed_off_as_comparable(evaluate):
    keys = ("compare", "gt=gt", "folders={one: sr, two: other}", "output=out", "strict=false")
    assert evaluate(*keys).returncode == 0
    assert "Not the same images" not in (evaluate.folder / "out" / "table.md").read_text()
    (evaluate.folder / "sr" / "a.png").unlink()
    assert evaluate(*keys).returncode == 0
    assert "Not the same images (one 1, two 2)" in (evaluate.folder / "out" / "table.md").read_text()


def test_the_protocol_can_be_changed(evaluate):
    means = {}
    for choice in (
        "protocol=osediff",
        "protocol=refir",
        "protocol=yiq",
        "protocol.crop_border=3",
        "protocol=rgb",
    ):
        assert evaluate("score", "sr=sr", "gt=gt", "output=out", choice, "metrics=[psnr]").returncode == 0
        means[choice] = read(evaluate.folder / "out" / "metrics.json")["mean"]["psnr"]
    assert len(set(means.values())) == 5
    assert means["protocol=osediff"] - means["protocol=yiq"] == pytest.approx(1.3219, abs=1e-3)
    assert "Protocol rgb" in (evaluate.folder / "out" / "table.md").read_text()


def test_methods_on_one_set_and_their_comparison(evaluate):
    keys = (
        "compare",
        "gt=gt",
        "lq=lq",
        "baselines=[bicubic]",
        "folders={one: sr, two: other}",
        "output=out",
        "report_crop=8",
    )
    result = evaluate(*keys, "pair=[one,bicubic]")
    assert result.returncode == 0, result.stderr
    out = evaluate.folder / "out"
    each = {f"{key}/{name}" for key in ("bicubic", "one", "two") for name in SCORES}
    made = {"bicubic/sr/a.png", "bicubic/sr/b.png", "bicubic/sr/results.jsonl"}
    pair = {"pair.json", "pair.md", "pair.png"}
    assert files(out) == TABLE | each | made | pair | {"report.html"}
    assert read_image(out / "bicubic/sr/a.png").shape == (3, 16, 20)
    table = (out / "table.md").read_text()
    assert "| Bicubic | **" in table and table in result.stdout
    assert read(out / "pair.json")["methods"] == ["one", "Bicubic"]
    page = (out / "report.html").read_text()
    again = evaluate("report", "output=out", "report_images=1", "report_crop=8")
    assert again.returncode == 0 and len((out / "report.html").read_text()) < len(page)
    scale = evaluate(*keys, "baselines.bicubic.scale=2", "baselines.bicubic.label=x2")
    assert (
        scale.returncode == 2
        and "different sizes out/bicubic/sr/a.png and gt/a.png (10x8 and 20x16)" in scale.stderr
    )


def test_a_table_of_a_paper(evaluate):
    root = evaluate.folder
    for kind in ("gt", "lq"):
        (root / "sets" / "wr_sr").mkdir(parents=True, exist_ok=True)
        (root / kind).rename(root / "sets" / "wr_sr" / kind)
    (root / "kept" / "wr_sr").mkdir(parents=True)
    (root / "sr").rename(root / "kept" / "wr_sr" / "seesr")
    result = evaluate("table", "table=rasr2", "results=kept", "testsets=sets", "metrics=[psnr,ssim,fid]")
    assert result.returncode == 0, result.stderr
    out = root / "outputs" / "tables" / "rasr2"
    rows = {row["label"]: row for row in read(out / "table.json")["rows"]}
    assert (
        rows["RefDSR"]["published"] == [21.92, 0.5761, 0.3254, 57.82, 3.6509]
        and rows["RefDSR"]["values"] == [None] * 5
    )
    assert (
        rows["SeeSR"]["values"][2:] == [None] * 3
        and rows["SeeSR"]["values"][0] == read(out / "wr_sr" / "seesr" / "metrics.json")["mean"]["psnr"]
    )
    assert "WR-SR: no figures of DiffBIR at kept/wr_sr/diffbir, OSEDiff at" in result.stdout
    assert '<span class="paper">21.92</span>' in (out / "report.html").read_text()
    restored = evaluate(
        "table",
        "table=rasr2",
        "testsets=sets",
        "output=out",
        "metrics=[psnr]",
        "baselines=[diffbir]",
        "baselines.diffbir.folder=other",
    )
    assert restored.returncode == 0, restored.stderr
    assert (root / "out" / "wr_sr" / "diffbir" / "metrics.json").is_file()
    absent = evaluate("table", "table=rasr2", "baselines=[bicubic]")
    assert (absent.returncode, absent.stderr) == (
        2,
        "error: table rasr2 has no row bicubic; its rows are diffbir, seesr, osediff, rasr\n",
    )
    nothing = evaluate("table", "table=refir2", "output=empty")
    assert (
        nothing.returncode == 0
        and "RealPhoto60: no figures of StableSR at results/realphoto60/stablesr" in nothing.stdout
    )


@pytest.mark.slow
@pytest.mark.parametrize("weights", ["weights.safetensors", "backbone"])
def test_complexity_of_ours(evaluate, weights):
    """A bare backbone counts with a fresh branch."""
    make_tiny_backbone(seed=0).save_pretrained(evaluate.folder / "backbone")
    save_weights(build_rasr_net(str(evaluate.folder / "backbone")), evaluate.folder / "weights")
    build_index(evaluate.folder / "gt", evaluate.folder / "index", ColorGradientEncoder())
    keys = (
        "complexity",
        "complexity=rasr",
        f"weights={weights}",
        "index=index",
        "device=cpu",
        "repeats=1",
        "size=32",
    )
    result = evaluate(*keys, "output=out")
    assert result.returncode == 0, result.stderr
    figures = read(evaluate.folder / "out" / "complexity.json")
    assert figures["retrieval"]["seconds"] > 0 and figures["device"] == "cpu"
    assert figures["with_reference"]["gmacs"] > figures["without_reference"]["gmacs"]
    assert 0 < figures["trainable_parameters"] < figures["parameters"]
    assert "(paper: 12.8)" in result.stdout


def test_complexity_of_a_spandrel_network(evaluate):
    arch = pytest.importorskip("spandrel.architectures.Compact.__arch.SRVGG")
    net = arch.SRVGGNetCompact(num_feat=8, num_conv=2, upscale=4)
    torch.save(net.state_dict(), evaluate.folder / "net.pth")
    gmacs = []
    for size in (32, 64):
        keys = (
            "complexity",
            "complexity=spandrel",
            "weights=net.pth",
            f"size={size}",
            "repeats=2",
            "output=out",
        )
        result = evaluate(*keys)
        assert result.returncode == 0, result.stderr
        figures = read(evaluate.folder / "out" / "complexity.json")
        assert (figures["size"], figures["repeats"]) == (size, 2)
        gmacs.append(figures["gmacs"])
    assert gmacs[1] == pytest.approx(4 * gmacs[0])
    failed = evaluate("complexity", "complexity=spandrel", "weights=net.pth", "repeats=0", "output=out")
    assert failed.stderr == "error: repeats=0 times nothing; give 1 or more\n"


def test_wandb_gets_table_and_page(evaluate, monkeypatch):
    logged = {}

    class Run:
        def log(self, values):
            logged.update(values)

        def finish(self):
            logged["finished"] = True

    monkeypatch.setattr("wandb.init", lambda **options: logged.update(options) or Run())
    result = evaluate("score", "sr=sr", "gt=gt", "output=out", "metrics=[psnr]", "wandb=mine")
    assert result.returncode == 0, result.stderr
    assert (logged["project"], logged["mode"], logged["finished"]) == ("mine", "offline", True)
    assert logged["table"].columns == ["method", "PSNR"]
    mean = read(evaluate.folder / "out" / "metrics.json")["mean"]["psnr"]
    assert logged["table"].data == [["sr", mean]]
    assert "report" in logged
    logged.clear()
    assert evaluate("score", "sr=sr", "gt=gt", "output=out").returncode == 0 and logged == {}


def test_references_stand_beside_the_restorations(evaluate):
    record = {"output": "sr/a.png", "reference": "a.png", "score": 0.25}
    (evaluate.folder / "sr" / "results.jsonl").write_text(json.dumps(record) + "\n")
    evaluate("score", "sr=sr", "gt=gt", "output=out")
    page = (evaluate.folder / "out" / "report.html").read_text()
    assert "reference of sr: a.png, cosine 0.250" in page and '<figure class="reference"><img' not in page
    evaluate("score", "sr=sr", "gt=gt", "output=out", "references=other", "lq=lq")
    page = (evaluate.folder / "out" / "report.html").read_text()
    assert '<figure class="reference"><img' in page and 'alt="LR"' in page


def test_in_a_process_of_its_own(evaluate):
    """A good run, the same again, and a mistake."""

    def run(*arguments):
        command = [
            sys.executable,
            str(REPOSITORY / "evaluate.py"),
            *arguments,
            "sr=sr",
            "gt=gt",
            "output=out",
        ]
        return subprocess.run(command, cwd=evaluate.folder, capture_output=True, text=True, timeout=300)

    keys = ("metrics=[psnr]", "report_images=0")
    for again in (False, True):
        done = evaluate("score", "sr=sr", "gt=gt", "output=out", *keys) if again else run("score", *keys)
        assert done.returncode == 0, done.stderr
        assert files(evaluate.folder / "out") == TABLE | SCORES
        known = (evaluate.folder / "out" / "scores.jsonl").read_text().splitlines()
        assert len(known) == 2 and done.stdout.startswith("psnr ")
    done = run("job=scores")
    line = "error: job=scores is unknown; give one of score, compare, table, complexity, report\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", line)


def test_help_names_every_key(evaluate):
    result = evaluate("--help")
    assert result.returncode == 0
    for key in ("sr=null", "gt=null", "output=null", "metrics=[psnr,ssim]", "strict=true", "Examples:"):
        assert key in result.stdout
