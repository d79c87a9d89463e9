"""The fixed sets of `benchmarks/quality.py`: what is tested on is never trained on nor referred to."""

import json
import sys

import pytest
import torch

from benchmarks import quality
from benchmarks.quality_report import check_targets
from benchmarks.quality_sets import centre_box, find_sets, half_boxes, image_seed, make_set
from benchmarks.quality_sheet import spread
from rasr.errors import RasrError
from rasr.image_io import list_images, read_image, write_png
from rasr.models import build_rasr_net, make_tiny_backbone
from rasr.preparation.sets import split_categories
from tests.helpers import wake_zero_convs


def test_the_last_two_photos_of_every_class_are_for_the_test(tmp_path):
    for name in ("b", "a"):
        for i in (3, 1, 2, 0):
            write_png(torch.rand(3, 8, 8), tmp_path / name / f"{i}.png")
    names = {
        category: tuple([path.name for path in photos] for photos in parts)
        for category, parts in split_categories(tmp_path).items()
    }
    expected = (["0.png", "1.png"], ["2.png", "3.png"])
    assert names == {"a": expected, "b": expected}


@pytest.mark.parametrize("size", [(321, 481), (481, 321), (1200, 1600), (257, 256), (512, 512)])
def test_test_and_reference_crop_share_no_pixel(size):
    count = torch.zeros(1, *size)
    for box in half_boxes(*size):
        assert box.height % 16 == box.width % 16 == 0 and max(box.height, box.width) <= 512
        part = box.cut(count)
        assert part.shape[1:] == (box.height, box.width)  # inside the photograph
        part += 1
    assert count.max() == 1


def test_crops_are_as_large_as_they_may_be():
    assert centre_box(321, 481) == (0, 0, 320, 480)
    assert centre_box(1000, 700) == (244, 94, 512, 512)
    assert half_boxes(255, 127) is None and half_boxes(250, 250) is None


def test_an_image_is_degraded_by_its_set_and_name_alone(tmp_path):
    seeds = {image_seed(*parts) for parts in ((0, "set14", "a"), (1, "set14", "a"), (0, "bsd100", "a"))}
    assert len(seeds | {image_seed(0, "set14", "b")}) == 4
    for i in range(3):
        write_png(torch.rand(3, 140, 300), tmp_path / "photos" / "Set14" / "HR" / f"{i}.png")
    write_png(torch.rand(3, 100, 300), tmp_path / "photos" / "Set14" / "HR" / "small.png")
    lqs = {}
    for limit in (None, 2):
        sets, absent = find_sets(tmp_path, limit)
        assert len(absent) == 4 and [one.key for one in sets] == ["set14", "halves"]
        for one in sets:
            made = make_set(one, tmp_path / str(limit) / one.key, preset="realesrgan", seed=0)
            assert len(made.cases) == (limit or 3)  # without the one that is too small
            lqs[limit, one.key] = read_image(
                tmp_path / str(limit) / one.key / "lq" / f"{made.cases[1].name}.png"
            )
    assert torch.equal(lqs[None, "set14"], lqs[2, "set14"]) and lqs[2, "set14"].shape == (3, 32, 72)
    assert torch.equal(lqs[None, "halves"], lqs[2, "halves"])
    with pytest.raises(RasrError, match="unknown"):
        make_set(sets[0], tmp_path / "new", preset="unheard", seed=0)
    make_set(sets[0], tmp_path / "new", preset="osediff", seed=0)  # the mistake left nothing behind
    with pytest.raises(RasrError, match="other photographs, --preset, --seed or --limit"):
        make_set(sets[0], tmp_path / "2" / "set14", preset="realesrgan", seed=1)


def test_the_sheet_takes_from_every_set():
    assert spread([range(100), range(3), range(10)], 9) == [16, 50, 83, 0, 1, 2, 1, 5, 8]
    assert spread([range(2), range(1)], 9) == [0, 1, 0]


@pytest.mark.parametrize(
    ("gain", "verdict"), [(0.49, "NOT met"), (0.5, "met"), (1.0, "met, the aim too"), (None, "-")]
)
def test_targets_say_met_or_not(gain, verdict):
    reports = {}
    if gain is not None:
        reports = {"set14": {"bicubic": {"mean": {"psnr": 20.0}}, "without": {"mean": {"psnr": 20.0 + gain}}}}
    found = {target.what: target.verdict for target in check_targets(reports, [], {"seconds_without": 2.5})}
    assert found["set14: PSNR against bicubic"] == verdict
    assert found["128x128 -> 512x512, no reference"] == "NOT met"


@pytest.mark.parametrize(
    ("metric", "interval", "verdict"),
    [
        ("psnr", (0.1, 0.3), "met"),
        ("psnr", (-0.1, 0.3), "NOT met"),
        ("gmsd", (0.1, 0.3), "NOT met"),
        ("gmsd", (-0.3, -0.1), "met"),
    ],
)
def test_a_reference_must_help_beyond_chance(metric, interval, verdict):
    entry = {
        "set": "halves",
        "method": "same",
        "metric": metric,
        "interval": interval,
        "mean_difference": 0.0,
    }
    targets = check_targets({}, [entry], {})
    assert [t.verdict for t in targets if t.measured.startswith("+0.0")] == [verdict]


@pytest.mark.parametrize(
    ("mean", "interval", "verdict"),
    [(-0.05, (-0.1, 0.0), "met"), (-0.11, (-0.2, 0.0), "NOT met"), (0.2, (0.1, 0.3), "NOT met")],
)
def test_a_random_reference_neither_helps_nor_harms(mean, interval, verdict):
    entry = {
        "set": "set14",
        "method": "random",
        "metric": "psnr",
        "interval": interval,
        "mean_difference": mean,
    }
    (target,) = [t for t in check_targets({}, [entry], {}) if t.what.startswith("set14: PSNR, with a random")]
    assert target.verdict == verdict


@pytest.mark.slow
def test_from_photographs_to_figures(tmp_path, monkeypatch, capsys):
    photos = tmp_path / "photos"
    for i in range(2):
        write_png(torch.rand(3, 160, 288), photos / "photos" / "Set14" / "HR" / f"{i}.png")
    for i in range(4):
        write_png(torch.rand(3, 144, 160), photos / "categories" / "castle" / f"{i}.png")
    net = build_rasr_net(make_tiny_backbone(seed=0), color_fix="none")
    wake_zero_convs(net)
    net.save_pretrained(tmp_path / "net")

    def measure(*extra) -> dict:
        keys = ["--photos", photos, "--weights", tmp_path / "net", "--output", tmp_path / "out", *extra]
        monkeypatch.setattr(sys, "argv", ["quality", *map(str, keys), "--no-speed"])
        quality.main()
        return json.loads(next((tmp_path / "out").glob("net-*/quality.json")).read_text())

    found = measure("--sheet", tmp_path / "sheet.jpg")
    methods = {key: set(reports) for key, reports in found["reports"].items()}
    assert methods == {
        "set14": {"bicubic", "without", "random", "retrieved"},
        "categories": {"bicubic", "without", "random", "retrieved"},
        "halves": {"bicubic", "without", "same"},
    }
    assert (tmp_path / "sheet.jpg").read_bytes()[:2] == b"\xff\xd8"
    assert any("BSD100" in line for line in found["absent"])
    scores = {name: report["mean"]["psnr"] for name, report in found["reports"]["set14"].items()}
    assert len(set(scores.values())) == len(scores)
    assert "| Set14" in capsys.readouterr().out

    # The same again restores nothing anew; another strength is another folder.
    restored = list_images(next((tmp_path / "out").glob("net-*/set14/without")))
    before = [path.stat().st_mtime_ns for path in restored]
    assert measure()["reports"] == found["reports"]
    assert [path.stat().st_mtime_ns for path in restored] == before
    for keys in (("--conditioning-scale", "1.0"), ("--color-fix", "adain")):
        measure("--sets", "set14", *keys)
    assert len(list((tmp_path / "out").glob("net-*"))) == 3


LOST = ["--photos", "lost", "--weights", "lost", "--output", "lost"]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["--encoder", "unheard"], "invalid choice: 'unheard'"),
        (["--limit", "0"], "--limit: 0 is not a whole number of at least 1"),
        (["--color-fix", "nofix"], "invalid choice: 'nofix'"),
    ],
)
def test_mistakes_show_before_the_work(monkeypatch, capsys, keys, message):
    monkeypatch.setattr(sys, "argv", ["quality", *LOST, *keys])
    with pytest.raises(SystemExit):
        quality.main()
    assert message in capsys.readouterr().err


def test_a_sheet_that_is_no_jpeg_is_refused_before_the_work(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["quality", *LOST, "--sheet", "x.png"])
    with pytest.raises(RasrError, match=r"--sheet x\.png is no JPEG"):
        quality.main()
