"""verify: everything wrong is found and named, nothing right is."""

import numpy as np
import pytest
import torch

from rasr.image_io import write_png
from rasr.retrieval import ColorGradientEncoder, ReferenceIndex, build_index, verify_index


@pytest.fixture(params=["edge", "flat"])
def index(request, tmp_path):
    for n in range(5):
        write_png(torch.rand(3, 24, 24), tmp_path / "db" / f"{n}.png")
    settings = {"engine": request.param, "patches": {"size": 16, "overlap": 0}, "show_progress": False}
    build_index(tmp_path / "db", tmp_path / "index", ColorGradientEncoder(), **settings)
    with ReferenceIndex.open(tmp_path / "index") as index:
        yield index


def problems(index, **settings) -> list[str]:
    return verify_index(index, show_progress=False, **settings).problems


def test_a_good_index_has_no_problems(index):
    report = verify_index(index, show_progress=False)
    assert (report.entries, report.images, report.problems) == (20, 5, [])


def test_missing_and_changed_images_are_named_once(index, tmp_path):
    (tmp_path / "db" / "1.png").unlink()
    write_png(torch.rand(3, 24, 24), tmp_path / "db" / "2.png")
    (tmp_path / "db" / "3.png").write_bytes(b"")
    gone, changed, empty = sorted(problems(index))
    assert gone.endswith("1.png: the image is gone")
    assert "2.png: the image has changed" in changed
    assert "3.png: the file is empty" in empty
    assert problems(index, check_hashes=False) == [gone]


def test_wrong_vectors_and_counts_are_found(index, monkeypatch):
    vectors = type(index).vectors

    def spoilt(self, ids):
        result = vectors(self, ids).copy()
        result[0], result[1] = np.nan, result[1] / 2
        return result

    with monkeypatch.context() as patch:
        patch.setattr(type(index), "vectors", spoilt)
        found = problems(index)
    assert ["nan" in found[0], "norm 0.5" in found[1], len(found)] == [True, True, 2]
    monkeypatch.setattr(type(index), "count", lambda self: 21)
    assert problems(index) == ["21 entries are counted, 20 can be read"]
