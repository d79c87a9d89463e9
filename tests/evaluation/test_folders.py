"""Which files of a folder are results."""

import torch

from rasr.evaluation.folders import files_by_name
from rasr.image_io import write_png


def test_pictures_about_results_are_no_results(tmp_path):
    for name in ("a.png", "provenance/a.png", "cats/provenance/b.png"):
        write_png(torch.zeros(3, 4, 4), tmp_path / name)
    assert set(files_by_name(tmp_path)) == {"a", "provenance/a", "cats/provenance/b"}
    (tmp_path / "results.jsonl").write_text("")  # now it is a folder of infer.py
    assert set(files_by_name(tmp_path)) == {"a", "cats/provenance/b"}
