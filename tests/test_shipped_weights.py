"""The weights that come with the repository: small, safe, and the first thing that works."""

import json

import pytest
import skimage.data
import torch
from safetensors.torch import load_file

from rasr.data.two_view import ViewRange, make_view
from rasr.degradation import RealESRGANDegradation
from rasr.evaluation import psnr
from rasr.image_io import read_image, to_tensor, write_png
from rasr.image_ops import resize_bicubic
from rasr.inference import Restorer
from rasr.models import SHIPPED_WEIGHTS, RASRNet, load_rasr_net
from rasr.seeding import SampleRandom
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
    assert {"README.md", "model_index.json", "correspondence.safetensors"} <= {path.name for path in files}
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


def test_nearly_clean_photographs_are_not_made_worse(net):
    restorer, degrade = Restorer(net, device="cpu"), RealESRGANDegradation("mild")
    gains = []
    for name in ("astronaut", "chelsea", "coffee", "rocket"):
        gt = to_tensor(getattr(skimage.data, name)()[40:296, 60:316])
        lq = degrade(gt[None], seeds=torch.tensor([1]))[0]
        lq_up = resize_bicubic(lq[None], gt.shape[-2:])[0]
        sr = restorer.restore(lq)
        gains.append((psnr(sr, gt, color="rgb") - psnr(lq_up, gt, color="rgb")).item())
    assert sum(gains) / len(gains) > 0.2, gains  # dB


@pytest.mark.parametrize("preset", ["mild", "realesrgan"])
def test_a_right_reference_helps_and_a_wrong_one_does_no_harm(net, preset):
    """Another view of the photograph, turned, scaled, exposed otherwise; and one of another photograph."""
    restorer, degrade = Restorer(net, device="cpu"), RealESRGANDegradation(preset)
    plain, corner = ViewRange(far=0, other=0, occluder=0), (40, 60)
    photos = [to_tensor(getattr(skimage.data, name)()) for name in ("astronaut", "chelsea", "coffee")]
    views = [make_view(photo, corner, 224, plain, SampleRandom(i))[0] for i, photo in enumerate(photos)]
    right, wrong = [], []
    for i, photo in enumerate(photos):
        gt = photo[:, corner[0] : corner[0] + 224, corner[1] : corner[1] + 224]
        lq = degrade(gt[None], seeds=torch.tensor([2]))[0]
        none = psnr(restorer.restore(lq), gt, color="rgb")
        right.append((psnr(restorer.restore(lq, views[i]), gt, color="rgb") - none).item())
        wrong.append((psnr(restorer.restore(lq, views[i - 1]), gt, color="rgb") - none).item())
    assert sum(right) / len(right) > 0.3, right  # dB
    assert min(wrong) > -0.03, wrong


def test_odd_references_do_no_harm(net):
    """Flat, tiny, a narrow strip, gray, upside down, the photograph itself, a good one twice."""
    restorer, degrade = Restorer(net, device="cpu"), RealESRGANDegradation("mild")
    photo = to_tensor(skimage.data.astronaut())
    gt = photo[:, 40:264, 60:284]
    lq = degrade(gt[None], seeds=torch.tensor([2]))[0]
    other = to_tensor(skimage.data.coffee())
    refs = {
        "flat": torch.full((3, 200, 200), 0.5),
        "tiny": photo[:, 100:116, 100:116],
        "strip": other[:, 100:140],
        "gray": other.mean(0, keepdim=True).expand(3, -1, -1),
        "upside down": photo.flip(1)[:, :300, :300],
        "itself": lq,
    }
    none = psnr(restorer.restore(lq), gt, color="rgb")
    change = {name: psnr(restorer.restore(lq, ref), gt, color="rgb") - none for name, ref in refs.items()}
    assert min(change.values()) > -0.05, change  # dB
    assert change["flat"] == change["tiny"] == 0  # nothing is taken at all
    once, twice = restorer.restore(lq, photo[:, :300, :300]), restorer.restore(lq, [photo[:, :300, :300]] * 2)
    assert (once - twice).abs().max() < 0.02


@pytest.mark.parametrize("level", [0, 128, 255])
def test_flat_pictures_stay_flat_and_gray(net, level):
    flat = torch.full((3, 40, 56), level / 255)
    sr = Restorer(net, device="cpu").restore(flat)
    assert (sr * 255 - level).abs().max() < 2


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
    assert net.color_fix == "anchor"
    sr = Restorer(net, device="cpu", color_fix="anchor").restore(*images)
    write_png(sr, tmp_path / "expected.png")
    assert torch.equal(read_image(tmp_path / "out" / "photo.png"), read_image(tmp_path / "expected.png"))
