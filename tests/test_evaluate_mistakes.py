"""What `python evaluate.py` says of wrong and of former keys, before any work."""

import pytest

from tests.helpers import evaluate_in


@pytest.fixture
def evaluate(tmp_path):
    return evaluate_in(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["compare", "sr=sr", "folders={a: other}"], "sr= has no meaning for job=compare; leave it out"),
        (["score", "sr=sr", "pair=[a,b]"], "pair= has no meaning for job=score"),
        (["table", "gt=gt", "table=rasr2"], "gt= has no meaning for job=table"),
        (["complexity", "table=rasr2", "complexity=rasr"], "table= has no meaning for job=complexity"),
        (["compare", "folders=other"], "write 'folders={NAME: other}'"),
        (
            ["compare", "lq=lq", "baselines=[bicubic]", "folders={bicubic: sr}"],
            "bicubic: a baseline and a folder of one",
        ),
        (["compare", "folders={a: sr}", "pair=a"], "pair=[a] must name two of the baselines a"),
    ],
)
def test_what_does_not_fit_together_is_refused(evaluate, arguments, text):
    gt = [] if "gt=gt" in arguments or "table=rasr2" in arguments else ["gt=gt"]
    result = evaluate(*arguments, *gt, "output=out")
    assert result.returncode == 2 and text in result.stderr, result.stderr
    assert not (evaluate.folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["score", "metrics=[fidd]", "sr=sr", "gt=gt", "output=out"],
            "unknown metric: fidd; known are psnr, ssim, ",
        ),
        (["score", "sr=sr", "gt=gt"], "missing key: output; add output=..."),
        (["score", "output=out"], "missing key: sr; add sr=... to the command, see --help"),
        (["compare", "output=out"], "missing key: baselines; add baselines=[...] or folders={NAME: DIR}"),
        (
            ["score", "sr=sr", "output=out"],
            "psnr, ssim: cannot be measured without gt=; give it, or only niqe",
        ),
        (
            ["compare", "baselines=[rasr]", "lq=lq", "gt=gt", "output=out"],
            "missing key: weights; our own methods need weights=FILE",
        ),
        (
            ["compare", "baselines=[hat]", "lq=lq", "gt=gt", "output=out"],
            "missing key: baselines.hat.weights; add baselines.hat.weights=...",
        ),
        (
            ["compare", "baselines=[bicubic]", "gt=gt", "output=out"],
            "Bicubic: photographs to restore are missing; give lq=FOLDER",
        ),
        (
            ["compare", "folders={a: none}", "gt=gt", "output=out"],
            "none: no such file or directory; check the path",
        ),
        (
            ["compare", "folders={a: sr}", "gt=gt", "output=out", "pair=[a,b]"],
            "pair=[a,b] must name two of the baselines a",
        ),
        (
            ["compare", "folders={Bicubic: sr}", "baselines=[bicubic]", "gt=gt", "output=out"],
            "two baselines are called Bicubic; rename one",
        ),
        (
            ["table", "table=rasr2", "baselines=[rasr]", "weights=w"],
            "RASRNet on WR-SR: no photographs at outputs/testsets/wr_sr/lq",
        ),
        (
            ["table", "table=rasr2", "metrics=[dists]"],
            "metrics=[dists]: the table has only psnr, ssim, lpips, fid, niqe",
        ),
        (
            ["compare", "baselines=[bicubic]", "lq=lq", "gt=gt", "metrics=[x]", "output=out"],
            "unknown metric: x; known are psnr",
        ),
        (["complexity", "complexity=rasr", "output=out"], "missing key: weights; add weights=..."),
        (
            ["report", "output=out"],
            "out/report.json: no such file; give the output folder of an evaluation",
        ),
        (
            ["score", "sr=sr", "gt=gt", "output=out", "device=gpu"],
            "device='gpu' is unknown; give auto, cpu, cuda or mps",
        ),
        (
            ["score", "sr=sr", "gt=gt", "output=out", "batch_size=0"],
            "batch_size=0 is not a whole number of at least 1",
        ),
    ],
)
def test_mistakes_are_told_in_one_line_before_work_starts(evaluate, arguments, line):
    result = evaluate(*arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(f"error: {line}") and result.stderr.count("\n") == 1
    assert not (evaluate.folder / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "job"),
    [
        (["sr=sr", "gt=gt"], "score"),
        (["baselines=[bicubic]", "gt=gt"], "compare"),
        (["methods=[bicubic]", "methods.bicubic.scale=2", "gt=gt"], "compare"),
        (["folders={a: sr}", "gt=gt"], "compare"),
        (["table=rasr2", "methods=[bicubic]"], "table"),
        (["complexity=rasr", "weights=w"], "complexity"),
        ([], "one of score, compare, table, complexity, report"),
    ],
)
def test_a_call_without_a_job_is_told_which_it_means(evaluate, arguments, job):
    result = evaluate(*arguments, "output=out")
    assert (result.returncode, result.stderr) == (2, f"error: missing key: job; add job={job}, see --help\n")
    assert not (evaluate.folder / "out").exists()


def test_former_keys_keep_working(evaluate):
    keys = ("lq=lq", "gt=gt", "output=out", "report_crop=8")
    result = evaluate("job=compare", "methods=[bicubic]", "methods.bicubic.label=Cubic", *keys)
    assert result.returncode == 0, result.stderr
    own = "{_target_: rasr.evaluation.FolderMethod, label: X, folder: sr}"
    former = evaluate("compare", f"+methods.x={own}", *keys)
    assert former.returncode == 0 and "| X |" in former.stdout, former.stderr
    page = evaluate.folder / "out" / "report.html"
    assert "| Cubic |" in result.stdout and page.is_file()
    page.unlink()
    assert evaluate("output=out", "report_only=true").returncode == 0 and page.is_file()


@pytest.mark.parametrize(
    "key", ["weights=w", "size=4", "baselines=[bicubic]", "+folders.a=sr", "testsets=x", "table=rasr1"]
)
def test_a_key_that_the_job_does_not_read_is_refused(evaluate, key):
    result = evaluate("score", "sr=sr", "gt=gt", "output=out", key)
    name = key.lstrip("+").split("=")[0].split(".")[0]
    line = f"error: {name}= has no meaning for job=score; leave it out, see --help\n"
    assert (result.returncode, result.stderr) == (2, line)
    assert not (evaluate.folder / "out").exists()
