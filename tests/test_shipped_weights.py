"""The weights that come with the repository: small, safe, and the first thing that works."""

import json

import pytest
import torch

from rasr.image_io import read_image, write_png
from rasr.inference import Restorer
from rasr.models import SHIPPED_WEIGHTS, RASRNet, load_rasr_net
from tests.helpers import REPOSITORY, run_entry

FOLDER = REPOSITORY / "weights" / "rasr-small"
SUFFIXES = {".safetensors", ".json", ".txt", ".md", ".png", ".jpg"}


@pytest.fixture(scope="module")
def net() -> RASRNet:
    return load_rasr_net()


def smooth_images(count: int, side: int) -> torch.Tensor:
    """(count, 3, side, side) in [0, 1] with some structure."""
    coarse = torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)


def test_the_folder_is_small_and_holds_nothing_that_could_be_run():
    assert SHIPPED_WEIGHTS == FOLDER
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= SUFFIXES
    assert {"README.md", "model_index.json", "reference_branch.safetensors"} <= {path.name for path in files}
    assert 1e6 < sum(path.stat().st_size for path in files) <= 25e6


def test_the_files_name_no_folder_of_the_machine_that_made_them():
    files = list(FOLDER.rglob("*.json"))
    assert files
    for path in files:
        text = path.read_text()
        assert str(REPOSITORY) not in text and "/home/" not in text and "outputs/" not in text, path


def test_the_card_lists_the_sources():
    card = (FOLDER / "README.md").read_text()
    assert card.startswith("---\n")
    assert "licence" in card.lower() or "license" in card.lower()
    assert "not written down yet" not in card


def test_a_small_photograph_becomes_four_times_as_large(net):
    lq = smooth_images(1, 32)[0]
    sr = Restorer(net, device="cpu").restore(lq)
    assert sr.shape == (3, 128, 128)
    assert torch.isfinite(sr).all() and sr.min() >= 0 and sr.max() <= 1
    # A restorer, not a painter: enlarged and shrunk again it is the photograph.
    again = torch.nn.functional.interpolate(sr[None], (32, 32), mode="bicubic", antialias=True)[0]
    assert (again - lq).abs().mean() < 0.05


def test_the_branch_has_an_effect(net):
    lq_up, ref = smooth_images(2, 128).split(1)
    assert net.branch is not None
    with torch.inference_mode():
        difference = (net(lq_up, ref, conditioning_scale=1.0) - net(lq_up)).abs().max()
    assert difference > 1 / 255


def test_infer_takes_them_by_itself_from_anywhere(tmp_path):
    write_png(smooth_images(1, 32)[0], tmp_path / "photo.png")
    write_png(smooth_images(2, 128)[1], tmp_path / "ref.png")
    done = run_entry("infer.py", "input=photo.png", "output=out", "reference=ref.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "out" / "photo.png").shape == (3, 128, 128)
    (record,) = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert record["reference"].endswith("ref.png")
