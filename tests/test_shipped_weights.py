"""The weights that come with the repository: small, safe, and the first thing that works."""

import json

import pytest
import skimage.data
import torch
from safetensors.torch import load_file

from rasr.data import RealESRGANDegradation
from rasr.evaluation import psnr
from rasr.image_io import read_image, to_tensor, write_png
from rasr.image_ops import resize_bicubic
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


def test_the_tensors_are_half_precision():
    for path in FOLDER.rglob("*.safetensors"):
        assert {tensor.dtype for tensor in load_file(path).values() if tensor.is_floating_point()} == {
            torch.float16
        }, path


def test_the_card_lists_the_sources():
    """Every photograph by name under a heading with its licence, as many as the card's table says."""
    card = (FOLDER / "README.md").read_text()
    assert card.startswith("---\n") and "not written down yet" not in card
    assert (FOLDER / "contact_sheet.jpg").is_file() and "contact_sheet.jpg" in card
    counts, heading = {}, None
    for line in (FOLDER / "sources.txt").read_text().splitlines():
        if line.startswith("  "):
            counts[heading] += 1
        elif ", CC BY" in line:
            heading = line
            counts[heading] = 0
    rows = [line for line in card.splitlines() if line.startswith("| ") and "CC BY" in line]
    assert sum(counts.values()) == sum(int(line.split("|")[2]) + int(line.split("|")[3]) for line in rows)
    assert len(counts) >= len(rows) == 3


def test_photographs_are_restored_better_than_by_enlargement(net):
    restorer, degrade = Restorer(net, device="cpu"), RealESRGANDegradation("realesrgan")
    gains = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        gt = to_tensor(getattr(skimage.data, name)()[40:296, 60:316])
        lq = degrade(gt[None], seeds=torch.tensor([0]))[0]
        sr = restorer.restore(lq)
        assert sr.shape == gt.shape and sr.min() >= 0 and sr.max() <= 1
        lq_up = resize_bicubic(lq[None], gt.shape[-2:])[0].clamp(0, 1)
        gains.append((psnr(sr, gt, color="rgb") - psnr(lq_up, gt, color="rgb")).item())
    assert min(gains) > 0 and sum(gains) / len(gains) > 0.5, gains  # dB


def test_the_branch_has_an_effect(net):
    lq_up, ref = smooth_images(2, 128).split(1)
    assert net.fusion is not None
    with torch.inference_mode():
        difference = (net(lq_up, ref, conditioning_scale=1.0) - net(lq_up)).abs().max()
    assert difference > 1 / 255


def test_infer_takes_them_by_itself_from_anywhere(net, tmp_path):
    write_png(smooth_images(1, 32)[0], tmp_path / "photo.png")
    write_png(smooth_images(2, 128)[1], tmp_path / "ref.png")
    done = run_entry("infer.py", "input=photo.png", "output=out", "reference=ref.png", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert read_image(tmp_path / "out" / "photo.png").shape == (3, 128, 128)
    (record,) = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    assert record["reference"].endswith("ref.png")
    # Without color_fix= the colours are what the weights ask for, not adain.
    images = [read_image(tmp_path / name) for name in ("photo.png", "ref.png")]
    assert net.color_fix == "none"
    sr = Restorer(net, device="cpu", color_fix="none").restore(*images)
    write_png(sr, tmp_path / "expected.png")
    assert torch.equal(read_image(tmp_path / "out" / "photo.png"), read_image(tmp_path / "expected.png"))
