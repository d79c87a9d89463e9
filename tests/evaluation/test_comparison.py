import json

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import compare_reports, draw_largest_differences, evaluate_folders, write_comparisons
from rasr.evaluation.comparison import largest_differences
from rasr.image_io import read_image, write_png


def report(digest="same", **columns):
    """A report with the given figures of the images 0, 1, ..."""
    count = len(next(iter(columns.values())))
    per_image = {str(i): {metric: values[i] for metric, values in columns.items()} for i in range(count)}
    interval = dict.fromkeys(columns, (0.0, 1.0))
    return {"per_image": per_image, "interval": interval, "protocol": {"digest": digest, "name": digest}}


def test_differences_are_paired_and_signed():
    first = report(psnr=[21.0, 22.0, 23.0, 20.0], lpips=[0.3, 0.2, 0.2, 0.2])
    second = report(lpips=[0.4, 0.1, 0.2, 0.1], psnr=[20.0, 20.0, 20.0, 21.0])
    psnr, lpips = compare_reports(first, second)
    assert (psnr.metric, psnr.count, psnr.wins, psnr.losses) == ("psnr", 4, 3, 1)
    assert psnr.mean_difference == pytest.approx(1.25)
    assert psnr.interval[0] < 1.25 < psnr.interval[1]
    assert psnr.p_value == pytest.approx(0.625)
    assert (lpips.wins, lpips.losses) == (1, 2)  # lower is better, and one is equal
    assert lpips.mean_difference == pytest.approx(0.025)


def test_pairing_is_what_makes_small_differences_visible():
    base = [20.0, 30.0, 25.0, 35.0, 28.0, 22.0]
    (psnr,) = compare_reports(report(psnr=[value + 0.1 for value in base]), report(psnr=base))
    assert psnr.interval == (pytest.approx(0.1), pytest.approx(0.1))


def test_only_common_images_count():
    (psnr,) = compare_reports(report(psnr=[1.0, 2.0, 3.0]), report(psnr=[1.0, 1.0]))
    assert psnr.count == 2
    with pytest.raises(RasrError, match="no image in common"):
        compare_reports(report(psnr=[1.0]), report(psnr=[]))


def test_some_metric_must_be_common():
    with pytest.raises(RasrError, match="no per-image metric in common"):
        compare_reports(report(psnr=[1.0]), report(ssim=[1.0]))


def test_protocols_must_agree():
    with pytest.raises(RasrError, match="the protocols differ"):
        compare_reports(report("a", psnr=[1.0]), report("b", psnr=[1.0]))


def test_largest_differences_go_either_way():
    first, second = report(psnr=[1.0, 5.0, 3.0]), report(psnr=[2.0, 1.0, 3.0])
    assert largest_differences(first, second, "psnr", 2) == ["1", "0"]


def test_files(tmp_path):
    for folder in ("a", "b", "gt"):
        for name in ("x", "y", "z"):
            write_png(torch.rand(3, 16, 16), tmp_path / folder / f"{name}.png")
    reports = [
        evaluate_folders(tmp_path / folder, tmp_path / "gt", metrics=["psnr"]) for folder in ("a", "b")
    ]
    comparisons = compare_reports(*reports)
    write_comparisons(comparisons, ("A", "B"), tmp_path)
    draw_largest_differences(tuple(reports), ("A", "B"), "psnr", tmp_path / "pair.png", count=2)
    written = json.loads((tmp_path / "pair.json").read_text())
    assert written["methods"] == ["A", "B"]
    assert written["metrics"][0]["mean_difference"] == comparisons[0].mean_difference
    assert f"| PSNR ↑ | {comparisons[0].mean_difference:+.2f} |" in (tmp_path / "pair.md").read_text()
    # Two rows of three pictures, one line of labels.
    assert read_image(tmp_path / "pair.png").shape == (3, 40 + 26 + 2 * (256 + 26) + 10, 40 + 3 * 256 + 20)
