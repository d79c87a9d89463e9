"""The gallery: one self-contained page with every query, its references, scores and categories."""

import html.parser
import re
import subprocess
import sys

import pytest
import torch

from rasr.image_io import write_png
from rasr.retrieval import ColorGradientEncoder, Retriever, build_index
from rasr.retrieval.gallery import write_gallery
from tests.helpers import REPOSITORY, run_tool


@pytest.fixture
def folder(tmp_path):
    for n in range(4):
        write_png(torch.rand(3, 24, 48), tmp_path / "db" / "cats & <dogs>" / f"{n}.png")
    write_png(torch.rand(3, 24, 24), tmp_path / "queries" / "query.png")
    build_index(tmp_path / "db", tmp_path / "index", ColorGradientEncoder(), show_progress=False)
    return tmp_path


def gallery(folder, **settings) -> str:
    with Retriever.open(folder / "index") as retriever:
        queries = [folder / "queries" / "query.png", folder / "db" / "cats & <dogs>" / "0.png"]
        write_gallery(retriever, queries, folder / "g.html", show_progress=False, **settings)
    return (folder / "g.html").read_text()


class Reader(html.parser.HTMLParser):
    """Collects pictures and checks that every element is closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        if tag == "img":
            self.sources.append(dict(attributes)["src"])
        if tag not in ("img", "br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_page_shows_queries_hits_scores_and_categories(folder):
    page = gallery(folder, k=3)
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert len(reader.sources) == 2 * (1 + 3)
    assert all(source.startswith("data:image/jpeg;base64,") for source in reader.sources)
    assert not re.search(r"(src|href)=\"(?!data:)", page), "nothing is loaded from elsewhere"
    scores = [float(score) for score in re.findall(r'class="score">([\d.-]+)<', page)]
    assert len(scores) == 6
    assert scores[:3] == sorted(scores[:3], reverse=True)
    assert "cats &amp; &lt;dogs&gt;" in page
    assert "<dogs>" not in page
    second = page.split("<section>")[2]
    assert "/0.png<br>" not in second, "a query never finds itself"


def test_settings_change_the_page(folder):
    pages = [gallery(folder, k=2), gallery(folder, k=2, thumbnail=32), gallery(folder, k=2, max_score=-1.0)]
    assert len(set(pages)) == 3
    assert "no reference" in pages[2]


def test_command(folder):
    command = [
        sys.executable,
        "-m",
        "rasr.tools",
        "gallery",
        "input=queries",
        "index=index",
        "output=a/g.html",
    ]
    done = subprocess.run(
        [*command, "k=2"], cwd=folder, capture_output=True, text=True, env={"PYTHONPATH": str(REPOSITORY)}
    )
    assert done.returncode == 0, done.stderr
    assert (folder / "a" / "g.html").read_text().count("<figure") == 3
    for argument, message in [
        ("k=0", "k=0 is not a whole number of at least 1"),
        ("k=x", "k=x is not a whole number"),
        ("thumbnail=1", "thumbnail=1 is not a whole number of at least 16"),
        ("max_score=x", "max_score=x is not a finite number"),
        ("output=queries", "output=queries is a folder"),
    ]:
        keys = {"input": "queries", "index": "index", "output": "b.html"}
        keys |= dict([argument.split("=")])
        done = run_tool("gallery", *(f"{key}={value}" for key, value in keys.items()), cwd=folder)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr
