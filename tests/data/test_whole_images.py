import pytest
import torch

from rasr.data import Row, write_manifest
from rasr.data.whole_images import WholeImageDataset
from rasr.errors import RasrError
from rasr.image_io import write_png


@pytest.fixture
def manifest(tmp_path):
    for name, size in (("gt.png", (9, 7)), ("lq.png", (3, 5)), ("r0.png", (4, 4)), ("r1.png", (6, 6))):
        write_png(torch.rand(3, *size), tmp_path / name)
    rows = [
        Row("gt.png", "test", prompt="a thing", references=("r1.png", "r0.png")),
        Row("", "test", lq="lq.png"),
        Row("gt.png", "pairs", lq="lq.png"),
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    return tmp_path / "manifest.csv"


def test_images_come_whole_with_their_best_reference(manifest):
    with_gt, blind = WholeImageDataset(manifest, split="test", seed=0)
    assert with_gt["gt"].shape == (3, 9, 7) and "lq" not in with_gt
    assert with_gt["ref"].shape == (3, 6, 6)
    assert [path.rsplit("/")[-1] for path in with_gt["reference_paths"]] == ["r1.png", "r0.png"]
    assert (with_gt["prompt"], with_gt["sample_id"]) == ("a thing", "gt.png")
    assert blind["lq"].shape == (3, 3, 5) and {"gt", "ref"}.isdisjoint(blind)
    assert blind["sample_id"] == "lq.png" and blind["seed"] != with_gt["seed"]


def test_given_pairs_have_both(manifest):
    (sample,) = WholeImageDataset(manifest, split="pairs", seed=0)
    assert sample["gt"].shape == (3, 9, 7) and sample["lq"].shape == (3, 3, 5)


def test_seeds_do_not_depend_on_the_epoch(manifest):
    dataset = WholeImageDataset(manifest, split="test", seed=0)
    assert dataset[0, 1]["seed"] == dataset[7, 1]["seed"]
    assert dataset[0, 1]["seed"] != WholeImageDataset(manifest, split="test", seed=1)[0, 1]["seed"]


def test_a_missing_reference_names_row_and_path(manifest):
    (manifest.parent / "r0.png").unlink()
    with pytest.raises(RasrError, match=r"line 2, reference \S*r0\.png: no such file"):
        WholeImageDataset(manifest, split="test", seed=0)
