import json

import pytest
import torch
from PIL import Image

from rasr.errors import RasrError
from rasr.evaluation import EvaluationProtocol, evaluate_folders, match_files, psnr, write_report
from rasr.evaluation import measure as measure_module
from rasr.image_io import read_image, write_png


@pytest.fixture
def folders(tmp_path):
    """Two folders with the pairs `a` and `cat/a`; the ground truth lies in other formats."""
    for name in ("a", "cat/a"):
        write_png(torch.rand(3, 16, 20), tmp_path / "sr" / f"{name}.png")
        write_png(torch.rand(3, 16, 20), tmp_path / "gt" / f"{name}.png")
    (tmp_path / "gt" / "cat" / "a.png").rename(tmp_path / "gt" / "cat" / "a.PNG")
    return tmp_path / "sr", tmp_path / "gt"


def evaluate(folders, metrics=("psnr", "ssim"), strict=True):
    return evaluate_folders(*folders, metrics=metrics, strict=strict)


def test_pairs_go_by_relative_path_without_extension(folders):
    sr, gt = folders
    pairs, problems = match_files(sr, gt)
    assert problems == []
    assert pairs == {"a": (sr / "a.png", gt / "a.png"), "cat/a": (sr / "cat" / "a.png", gt / "cat" / "a.PNG")}


def test_figures_and_their_mean(folders):
    report = evaluate(folders, metrics=["psnr"])
    expected = {
        name: float(psnr(read_image(folders[0] / f"{name}.png"), read_image(path)))
        for name, path in (("a", folders[1] / "a.png"), ("cat/a", folders[1] / "cat" / "a.PNG"))
    }
    assert report["per_image"] == {name: {"psnr": value} for name, value in expected.items()}
    assert report["mean"] == {"psnr": pytest.approx(sum(expected.values()) / 2)}
    assert report["count"] == 2
    assert report["problems"] == []
    assert report["protocol"]["name"] == "osediff"
    assert report["sizes"] == {"20x16": 2}
    assert report["files"]["cat/a"] == {
        "sr": str(folders[0] / "cat/a.png"),
        "gt": str(folders[1] / "cat/a.PNG"),
    }
    low, high = report["interval"]["psnr"]
    assert low <= report["mean"]["psnr"] <= high
    assert report["versions"]["torch"]


def test_two_single_files_are_a_pair(folders):
    sr, gt = folders
    pairs, problems = match_files(sr / "a.png", gt / "cat" / "a.PNG")
    assert (pairs, problems) == ({"a": (sr / "a.png", gt / "cat" / "a.PNG")}, [])


def missing(sr, gt):
    (sr / "a.png").unlink()


def extra(sr, gt):
    (gt / "a.png").unlink()


def size(sr, gt):
    write_png(torch.rand(3, 16, 21), sr / "a.png")


def damaged(sr, gt):
    (sr / "a.png").write_bytes(b"no image")


def tiny(sr, gt):
    for folder in (sr, gt):
        write_png(torch.rand(3, 5, 5), folder / "a.png")


@pytest.mark.parametrize(
    ("spoil", "text"),
    [
        (missing, "missing in sr {gt}/a.png"),
        (extra, "extra in sr {sr}/a.png"),
        (size, "different sizes {sr}/a.png and {gt}/a.png (21x16 and 20x16)"),
        (damaged, "unreadable {sr}/a.png: not an image"),
        (tiny, "unmeasurable {sr}/a.png: SSIM needs 11 pixels"),
    ],
)
def test_problems_fail_unless_not_strict(folders, spoil, text, caplog):
    sr, gt = folders
    spoil(sr, gt)
    text = text.format(sr=sr, gt=gt)
    with pytest.raises(RasrError) as caught:
        evaluate(folders)
    assert text in str(caught.value)
    assert str(caught.value).endswith("strict=false to leave these out")
    assert "\n" not in str(caught.value)

    report = evaluate(folders, strict=False)
    assert list(report["per_image"]) == ["cat/a"]
    assert report["count"] == len(report["problems"]) == 1
    assert text in report["problems"][0]
    assert text in caplog.text


def test_every_problem_is_listed_before_any_metric_is_loaded(folders, monkeypatch):
    sr, gt = folders
    write_png(torch.rand(3, 16, 16), sr / "x.png")
    write_png(torch.rand(3, 16, 16), gt / "y.png")
    write_png(torch.rand(3, 16, 21), sr / "a.png")
    (sr / "cat" / "a.png").write_bytes(b"")
    monkeypatch.setattr(measure_module, "open_metrics", None)
    texts = r"missing in sr .*y\.png; extra in sr .*x\.png; different sizes .*; unreadable .*cat/a\.png: "
    with pytest.raises(RasrError, match=texts):
        evaluate(folders)


def test_an_image_that_exif_turns_fits(folders):
    sr, _ = folders
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.new("RGB", (16, 20)).save(sr / "a.png", exif=exif)
    assert evaluate(folders)["sizes"] == {"20x16": 2}


def test_two_files_of_one_name_are_always_an_error(folders):
    write_png(torch.rand(3, 16, 20), folders[0] / "b.png")
    (folders[0] / "b.png").rename(folders[0] / "cat" / "a.jpg")
    with pytest.raises(RasrError, match=r"sr: several files for cat/a; keep one of each"):
        evaluate(folders, strict=False)


def test_no_common_name(tmp_path):
    write_png(torch.rand(3, 16, 16), tmp_path / "sr" / "x.png")
    write_png(torch.rand(3, 16, 16), tmp_path / "gt" / "y.png")
    with pytest.raises(RasrError, match="no pair to compare"):
        evaluate((tmp_path / "sr", tmp_path / "gt"), strict=False)


@pytest.mark.parametrize(("metrics", "named"), [(["psnr", "lpisp"], "lpisp"), ([], "none given")])
def test_unknown_metrics_are_named_before_any_file_is_read(metrics, named):
    with pytest.raises(RasrError, match=f"unknown metric: {named}; known are psnr, ssim, "):
        evaluate(("missing", "missing"), metrics=metrics)


def test_written_files_hold_the_report(folders, tmp_path):
    report = evaluate(folders)
    output = tmp_path / "new" / "folder"
    write_report(report, output)
    write_report(report, output)  # again, over the old files
    assert sorted(path.name for path in output.iterdir()) == ["metrics.csv", "metrics.json"]
    written = json.loads((output / "metrics.json").read_text("utf-8"))
    assert written == json.loads(json.dumps(report))
    lines = (output / "metrics.csv").read_text().splitlines()
    assert lines[0] == "name,psnr,ssim"
    assert lines[2] == "cat/a,{psnr},{ssim}".format(**report["per_image"]["cat/a"])
    assert len(lines) == 3


def test_the_border_is_cut_before_measuring(folders):
    sr, gt = folders
    report = evaluate_folders(sr, gt, metrics=["psnr"], protocol=EvaluationProtocol(crop_border=2))
    inner = (slice(None), slice(2, -2), slice(2, -2))
    expected = psnr(read_image(sr / "a.png")[inner], read_image(gt / "a.png")[inner])
    assert report["per_image"]["a"]["psnr"] == pytest.approx(float(expected))
    with pytest.raises(RasrError, match=r"a\.png: a border of 8 leaves nothing"):
        evaluate_folders(sr, gt, metrics=["psnr"], protocol=EvaluationProtocol(crop_border=8))


def test_without_ground_truth_full_reference_metrics_are_refused(folders):
    with pytest.raises(RasrError, match="psnr: cannot be measured without gt="):
        evaluate_folders(folders[0], None, metrics=["psnr", "niqe"])


class Counting:
    """Stands for a learnt metric: the mean of sr, and a note of every call."""

    def __init__(self):
        self.batches = []

    def __call__(self, sr, gt):
        self.batches.append(sr.shape)
        if (sr.amin((1, 2, 3)) == 1).any():
            raise RasrError("white")
        return sr.mean((1, 2, 3))


@pytest.fixture
def counting(monkeypatch):
    """`musiq` and `fid` without pyiqa."""
    counter = Counting()

    def set_metric(gt, sr):
        counter.sets = [sorted(path.name for path in folder.iterdir()) for folder in (gt, sr)]
        return 7.0

    def open_metrics(names, protocol, device):
        known = {
            "musiq": measure_module.Metric("musiq", "musiq 1", counter),
            "maniqa": measure_module.Metric("maniqa", "maniqa 1", counter, is_batched=False),
            "fid": measure_module.Metric("fid", "fid 1", set_metric),
        }
        return {name: known[name] for name in names if name in known}, {}

    monkeypatch.setattr(measure_module, "open_metrics", open_metrics)
    return counter


def test_images_of_one_size_are_batched(folders, counting):
    sr, gt = folders
    for folder in folders:
        write_png(torch.rand(3, 12, 12), folder / "b.png")
    evaluate_folders(sr, gt, metrics=["musiq"], batch_size=2)
    assert counting.batches == [(2, 3, 16, 20), (1, 3, 12, 12)]
    counting.batches.clear()
    report = evaluate_folders(sr, gt, metrics=["maniqa"], batch_size=2)
    assert [shape[0] for shape in counting.batches] == [1, 1, 1]
    assert list(report["per_image"]) == ["a", "b", "cat/a"]
    assert report["per_image"]["a"]["maniqa"] == pytest.approx(float(read_image(sr / "a.png").mean()))


def test_one_bad_image_of_a_batch_leaves_the_others(folders, counting):
    sr, gt = folders
    write_png(torch.ones(3, 16, 20), sr / "a.png")
    report = evaluate_folders(sr, gt, metrics=["musiq"], batch_size=2, strict=False)
    assert list(report["per_image"]) == ["cat/a"]
    assert report["problems"] == [f"unmeasurable {sr}/a.png: white"]


def test_known_figures_are_not_measured_again(folders, counting, tmp_path):
    sr, gt = folders
    store = tmp_path / "new" / "scores.jsonl"

    def run(**options):
        counting.batches.clear()
        return evaluate_folders(sr, gt, metrics=["musiq"], store=store, **options)

    first = run()
    assert len(counting.batches) == 2
    with store.open("a") as file:
        file.write('{"metric": "musiq 1", "sr": "cut')  # an interruption
    assert run()["per_image"] == first["per_image"] and counting.batches == []
    write_png(torch.rand(3, 16, 20), sr / "a.png")  # another content under the same name
    changed = run()
    assert len(counting.batches) == 1 and changed["per_image"]["a"] != first["per_image"]["a"]
    run()
    assert counting.batches == []


def test_a_figure_of_the_set_sees_exactly_the_compared_images(folders, counting):
    sr, gt = folders
    write_png(torch.rand(3, 8, 8), gt / "lonely.png")
    write_png(torch.rand(3, 8, 8), gt / "b.png")
    write_png(torch.rand(3, 9, 9), sr / "b.png")
    report = evaluate_folders(sr, gt, metrics=["musiq", "fid"], strict=False)
    assert counting.sets == [["000000.png", "000001.png"]] * 2
    assert report["mean"]["fid"] == 7.0 and "fid" not in report["interval"]
    assert list(report["mean"]) == ["musiq", "fid"]
