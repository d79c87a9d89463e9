"""The page: complete in itself, and its slider moves."""

import json
import re
from html.parser import HTMLParser

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import (
    ResultSet,
    compare_reports,
    evaluate_folders,
    metrics_table,
    write_comparisons,
    write_contents,
    write_html,
    write_report,
    write_table,
)
from rasr.evaluation.html_report import choose_images, find_crop
from rasr.image_io import write_png
from tests.evaluation import chromium

needs_chromium = pytest.mark.skipif(chromium.PROGRAM is None, reason="no Chromium on this machine")


@pytest.fixture
def results(tmp_path):
    """What evaluate.py leaves of two methods on three images, the second with retrieved references."""
    for name in ("a", "b", "cat/c"):
        gt = torch.rand(3, 32, 32)
        write_png(gt, tmp_path / "gt" / f"{name}.png")
        write_png(torch.rand(3, 8, 8), tmp_path / "lq" / f"{name}.png")
        write_png(torch.rand(3, 16, 16), tmp_path / "database" / f"{name}.png")
        strength = {"a": 0.1, "b": 0.9, "cat/c": 0.4}[name]
        write_png(gt + strength * (torch.rand(3, 32, 32) - gt), tmp_path / "one" / f"{name}.png")
        write_png(gt + 0.1 * (torch.rand(3, 32, 32) - gt), tmp_path / "two" / f"{name}.png")
    lines = [
        {"output": f"elsewhere/two/{name}.png", "reference": f"{name}.png", "score": 0.5}
        for name in ("a", "b", "cat/c")
    ]
    # Another program's log may hold other records, and an interruption cuts a line off.
    odd = ["[]", '{"loss": 1}', '{"output": null}', '{"output": "tw']
    (tmp_path / "two" / "results.jsonl").write_text("\n".join([*odd, *map(json.dumps, lines)]))
    output = tmp_path / "out"
    reports = {}
    for key in ("one", "two"):
        reports[key] = evaluate_folders(tmp_path / key, tmp_path / "gt", metrics=["psnr", "ssim"])
        write_report(reports[key], output / key)
    labelled = {"<One>": reports["one"], "Two": reports["two"]}
    write_table(metrics_table("Two & more", labelled, ["psnr", "ssim"]), output)
    methods = {"<One>": "one", "Two": "two"}
    write_contents(output, [ResultSet(methods, str(tmp_path / "lq"))], references=str(tmp_path / "database"))
    write_comparisons(compare_reports(*reports.values()), ("<One>", "Two"), output)
    return output


class Outline(HTMLParser):
    """Counts tags, and notes every address that a page points to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.links = [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def test_the_page_is_complete_in_itself(results):
    page = write_html(results, images=2, crop_size=16)
    text = page.read_text("utf-8")
    outline = Outline(text)
    assert page == results / "report.html"
    # 2 images: LR, two methods, ground truth, and the reference.
    assert len(outline.links) == 2 * 5 and all(
        link.startswith("data:image/png;base64,") for link in outline.links
    )
    assert not re.search(r"https?://(?!www\.w3\.org)", text)
    assert (
        outline.tags.count("section") == 2
        and "&lt;One&gt;" in text
        and "<One>" not in text.split("<script")[0]
    )
    assert "reference of Two: b.png, cosine 0.500" in text
    assert "Two &amp; more" in text and "sign test" in text


def test_the_number_of_photographs_and_the_crop_can_be_chosen(results):
    few = len(write_html(results, images=1, crop_size=16).read_text())
    assert few < len(write_html(results, images=1, crop_size=32).read_text())
    assert few < len(write_html(results, images=3, crop_size=16).read_text())


def test_images_that_tell_most_come_first(results):
    reports = [json.loads((results / key / "metrics.json").read_text()) for key in ("one", "two")]
    assert choose_images(reports, 2) == ["b", "cat/c"]  # where the methods differ
    assert choose_images(reports[:1], 1) == ["b"]  # the worst of a single one
    assert choose_images([], 3) == []


def test_the_crop_lies_where_the_images_differ():
    gt = torch.zeros(3, 64, 80)
    sr = gt.clone()
    sr[:, 40:56, 60:76] = 1
    left, top, right, bottom = find_crop([sr, gt], 24)
    assert left <= 60 and right >= 76 and top <= 40 and bottom >= 56
    assert (right - left, bottom - top) == (24, 24)
    assert find_crop([gt[:, :10], sr[:, :10]], 24) == (0, 0, 24, 10)


def test_images_of_different_sets_are_not_mixed(results):
    """Both sets have an image called a; each page section shows one set."""
    write_contents(results, [ResultSet({"A": "one"}), ResultSet({"B": "two"})], references=None)
    text = write_html(results, images=1).read_text()
    labels = [
        re.findall(r'class="crop" src="[^"]*" alt="([^"]*)"', part) for part in text.split("<section")[1:]
    ]
    assert labels == [["A", "ground truth"], ["B", "ground truth"]]


def test_a_table_without_results_has_a_page_too(results):
    write_contents(results, [], references=None)
    text = write_html(results).read_text()
    assert "Two &amp; more" in text and "Crops" not in text and "Every image" not in text


def test_a_folder_without_results(tmp_path):
    with pytest.raises(
        RasrError, match=r"report\.json: no such file; give the output folder of an evaluation"
    ):
        write_html(tmp_path)


@needs_chromium
def test_the_slider_follows_the_mouse(results, tmp_path):
    write_html(results, images=2, crop_size=16)
    with chromium.Page(results / "report.html", tmp_path / "profile") as page:
        assert page.run("document.title") == "Two & more"
        clip = "document.querySelector('.after').style.clipPath"
        assert "50%" in page.run(clip)
        page.click(".slider input", across=0.2)
        moved = float(re.search(r"([\d.]+)%", page.run(clip)).group(1))
        assert 15 < moved < 25
        assert page.run("document.querySelector('.bar').style.left") == f"{moved:g}%"
        # Left the LR, right the last method; another choice shows another picture.
        label = "document.querySelector('.{}').alt"
        assert [page.run(label.format(side)) for side in ("before", "after")] == ["LR", "Two"]
        page.run("(() => { const s = document.querySelector('.right'); s.value = 3; s.onchange(); })()")
        assert page.run(label.format("after")) == "ground truth"
        assert page.run("[...document.querySelectorAll('.slider img')].every((i) => i.naturalWidth === 16)")


@needs_chromium
def test_the_scatter_has_a_point_per_image(results, tmp_path):
    write_html(results, images=0)
    with chromium.Page(results / "report.html", tmp_path / "profile") as page:
        assert page.run("document.querySelectorAll('circle').length") == 3
        assert (
            page.run("document.querySelectorAll('#scatter line').length") == 1
        )  # the same metric on both axes
        page.click("circle[data-name='b']")
        assert page.run("document.getElementById('point').textContent").startswith("b: ")
        page.run("(() => { const s = document.getElementById('up'); s.value = 3; s.onchange(); })()")
        assert page.run("document.querySelectorAll('#scatter line').length") == 0
