"""benchmarks.references from photographs to tables, on small networks."""

import csv
import sys

import pytest
import torch
import torch.nn.functional as F

from benchmarks import reference_sets, references
from benchmarks.reference_sets import find_reference_sets
from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.models import build_rasr_net, make_tiny_backbone

SIZE = 64


@pytest.fixture(autouse=True)
def _small_crops(monkeypatch):
    monkeypatch.setattr(reference_sets, "SIZE", SIZE)
    monkeypatch.setattr(reference_sets, "LEAST_SIDE", 72)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("references")
    for i, size in enumerate([(76, 80), (72, 144)]):
        coarse = torch.rand(1, 3, 20, 20, generator=torch.Generator().manual_seed(i))
        photo = F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0]
        write_png(photo, folder / "photos" / "photos" / "Set14" / "HR" / f"{i}.png")
    for fusion in ("correspondence", "residual"):
        settings = {"head_width": 16, "transfer_width": 16} if fusion == "correspondence" else {}
        net = build_rasr_net(make_tiny_backbone(seed=0), fusion=fusion, fusion_settings=settings)
        net.save_pretrained(folder / fusion)
    return folder


def run(folder, monkeypatch, *keys):
    argv = ["references", "--photos", folder / "photos", "--output", folder / "out", *keys]
    monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
    references.main()


@pytest.mark.slow
def test_from_photographs_to_tables(folder, monkeypatch, capsys):
    weights = ("--weights", f"{folder / 'correspondence'}:correspondence", folder / "residual")
    monkeypatch.setattr(references, "open_learnt_metrics", lambda: {})
    run(folder, monkeypatch, *weights)
    printed = capsys.readouterr().out
    assert "two views of one photograph, mild (2 photographs)" in printed
    assert "| **right - wrong** | +0.00 " in printed  # a fresh fusion adds nothing
    assert "residual:residual" in printed and "Median seconds" in printed
    assert (folder / "out" / "references.md").read_text().count("###") == 6
    with (folder / "out" / "references.csv").open() as file:
        rows = list(csv.DictReader(file))
    methods = {row["method"] for row in rows}
    assert methods == {"bicubic", "none", "wrong", "right", "several", "same_photo"}
    assert len(list((folder / "out").glob("sheet_views_*.png"))) == 6
    # The same command makes nothing again.
    monkeypatch.setattr(references, "restore_case", None)
    run(folder, monkeypatch, *weights)
    assert capsys.readouterr().out == printed


def test_what_is_compared_is_what_it_says(folder):
    (views,) = find_reference_sets(folder / "photos", seed=0)
    narrow, wide = views.cases
    assert set(narrow.refs) == {"right", "wrong", "several"} and set(wide.refs) > set(narrow.refs)
    assert wide.gt().shape == (3, SIZE, SIZE) == wide.refs["right"][0]().shape
    assert torch.equal(wide.gt(), wide.gt()) and torch.equal(
        wide.refs["right"][0](), wide.refs["several"][0]()
    )
    assert not torch.equal(wide.refs["several"][0](), wide.refs["several"][1]())
    rest = wide.refs["same_photo"][0]()
    assert min(rest.shape[-2:]) >= 32


def test_mistakes_are_named(folder, monkeypatch, tmp_path):
    with pytest.raises(RasrError, match="--sets nothing: not below"):
        run(folder, monkeypatch, "--weights", folder / "residual", "--sets", "nothing")
    make_tiny_backbone(seed=0).save_pretrained(tmp_path / "bare")
    with pytest.raises(RasrError, match="without a reference fusion"):
        run(folder, monkeypatch, "--weights", tmp_path / "bare")
