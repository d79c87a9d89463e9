"""Metrics against values worked out by hand and against published ones."""

import csv
import math

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import evaluate_folders, psnr, ssim
from rasr.image_io import read_image


def flat(*colour, size=16):
    return torch.tensor(colour).reshape(3, 1, 1).expand(3, size, size)


def test_identity_reaches_the_cap():
    image = torch.rand(3, 20, 30)
    assert float(psnr(image, image)) == pytest.approx(80.0)  # 10 log10(1 / 1e-8)
    assert float(ssim(image, image)) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("colour", "luma_of_255"),
    # The BT.601 weights of limited range: white is 219 above black.
    [
        ((1.0, 1.0, 1.0), 219.0),
        ((1.0, 0.0, 0.0), 65.481),
        ((0.0, 1.0, 0.0), 128.553),
        ((0.0, 0.0, 1.0), 24.966),
    ],
)
def test_psnr_of_a_known_difference(colour, luma_of_255):
    expected = -10 * math.log10((luma_of_255 / 255) ** 2 + 1e-8)
    assert float(psnr(flat(*colour), flat(0.0, 0.0, 0.0))) == pytest.approx(expected, abs=1e-6)


def test_psnr_averages_the_squares_over_the_pixels():
    gt = torch.zeros(3, 4, 4)
    sr = gt.clone()
    sr[:, 0, 0] = 1  # one of 16 pixels
    assert float(psnr(sr, gt)) == pytest.approx(-10 * math.log10((219 / 255) ** 2 / 16), abs=1e-5)


def test_ssim_of_flat_images_is_the_luminance_factor():
    low, high = 16.0, 235.0  # Y of black and white
    c1 = (0.01 * 255) ** 2
    expected = (2 * low * high + c1) / (low**2 + high**2 + c1)
    assert float(ssim(flat(1.0, 1.0, 1.0), flat(0.0, 0.0, 0.0))) == pytest.approx(expected, abs=1e-9)


def test_ssim_of_one_window_is_the_formula():
    sr, gt = torch.rand(3, 11, 11, dtype=torch.float64), torch.rand(3, 11, 11, dtype=torch.float64)
    weights = torch.tensor([65.481, 128.553, 24.966], dtype=torch.float64).reshape(3, 1, 1)
    x, y = ((image * weights).sum(0).add(16).round() for image in (0.3 * sr, 0.3 * sr + 0.1 * gt))
    bell = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = bell[:, None] * bell / bell.sum() ** 2
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
    covariance = (window * (x - mean_x) * (y - mean_y)).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    expected = luminance * (2 * covariance + c2) / (var_x + var_y + c2)
    assert 0.1 < expected < 0.99
    assert float(ssim(0.3 * sr, 0.3 * sr + 0.1 * gt)) == pytest.approx(float(expected), abs=1e-9)


def test_negative_local_similarity_counts_as_zero():
    board = ((torch.arange(24)[:, None] + torch.arange(24)) % 2).float().expand(3, 24, 24)
    assert float(ssim(board, 1 - board)) == 0.0


def test_ssim_rounds_luma_to_levels():
    gt = flat(0.5, 0.5, 0.5)
    assert float(ssim(gt + 0.1 / 255, gt)) == 1.0
    assert float(psnr(gt + 0.1 / 255, gt)) < 79.9


@pytest.mark.parametrize("metric", (psnr, ssim))
def test_batches_give_one_value_per_image_and_symmetry(metric):
    sr, gt = torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20)
    values = metric(sr, gt)
    assert values.shape == (2,) and values.dtype == torch.float64
    assert torch.equal(values, torch.stack([metric(sr[0], gt[0]), metric(sr[1], gt[1])]))
    assert torch.allclose(values, metric(gt, sr))
    assert (metric(gt + 0.5 * (sr - gt), gt) > values).all()


@pytest.mark.parametrize("metric", (psnr, ssim))
@pytest.mark.parametrize("shape", [(3, 16, 17), (1, 16, 16), (16, 16)])
def test_shapes_must_agree(metric, shape):
    with pytest.raises(ValueError, match="one shape"):
        metric(torch.rand(shape), torch.rand(3, 16, 16))


def test_ssim_needs_its_window():
    with pytest.raises(RasrError, match=r"needs 11 pixels each way, got 40x10; leave ssim out"):
        ssim(torch.rand(3, 10, 40), torch.rand(3, 10, 40))
    assert 0 <= float(ssim(torch.rand(3, 11, 11), torch.rand(3, 11, 11))) <= 1


def test_full_range_luma_is_exactly_lower():
    """20 log10(255 / 219): the gap behind many a "my PSNR is not the paper's"."""
    sr, gt = torch.rand(3, 16, 20), torch.rand(3, 16, 20)
    gap = float(psnr(sr, gt) - psnr(sr, gt, color="yiq"))
    assert gap == pytest.approx(20 * math.log10(255 / 219), abs=1e-3)
    assert float(ssim(sr, gt, color="yiq")) != float(ssim(sr, gt))


def test_rgb_counts_every_channel():
    gt = torch.zeros(3, 16, 16)
    sr = gt.clone()
    sr[2] = 0.5  # blue hardly counts in luma
    assert float(psnr(sr, gt, color="rgb")) == pytest.approx(-10 * math.log10(0.25 / 3), abs=1e-5)
    assert float(psnr(sr, gt)) > float(psnr(sr, gt, color="rgb")) + 10
    channels = [
        float(ssim(a.expand(3, 16, 16), b.expand(3, 16, 16), color="rgb"))
        for a, b in zip(sr, gt, strict=True)
    ]
    assert float(ssim(sr, gt, color="rgb")) == pytest.approx(sum(channels) / 3)


@pytest.mark.parametrize("color", ["ycbcr", "yiq", "rgb"])
def test_agrees_with_pyiqa(color):
    pyiqa = pytest.importorskip("pyiqa")
    options = {"test_y_channel": color != "rgb", "crop_border": 2}
    if color != "rgb":
        options["color_space"] = color
    sr, gt = torch.rand(1, 3, 40, 48), torch.rand(1, 3, 40, 48)
    gt = 0.7 * sr + 0.3 * gt
    inner = (..., slice(2, -2), slice(2, -2))
    for name, own, tolerance in (("psnr", psnr, 1e-4), ("ssim", ssim, 1e-6)):
        theirs = float(pyiqa.create_metric(name, device="cpu", **options)(sr, gt))
        assert float(own(sr[inner], gt[inner], color=color)[0]) == pytest.approx(theirs, abs=tolerance)


@pytest.fixture(scope="module")
def published():
    """Per-image log of github.com/cswry/OSEDiff (2024-10-23, pyiqa 0.1.10) for the 30 images at hand."""

    def read(folder):
        with (folder / "metrics" / "realsr_per_image.csv").open(newline="") as file:
            rows = {row["name"][:-4]: row for row in csv.DictReader(file) if row["in_subset"] == "1"}
        assert len(rows) == 30
        return rows

    return read


@pytest.mark.shared_data
def test_published_values_of_osediff_on_realsr(shared_data, published):
    folder = shared_data / "realsr"
    report = evaluate_folders(folder / "results_osediff", folder / "HR", metrics=["psnr", "ssim"])
    rows = published(folder)
    assert report["protocol"]["name"] == "osediff" and report["per_image"].keys() == rows.keys()
    for name, row in rows.items():
        assert report["per_image"][name]["psnr"] == pytest.approx(float(row["PSNR"]), abs=1e-4), name
        assert report["per_image"][name]["ssim"] == pytest.approx(float(row["SSIM"]), abs=1e-6), name
    assert [round(report["mean"][name], 4) for name in ("psnr", "ssim")] == [25.3416, 0.7273]


@pytest.mark.shared_data
@pytest.mark.slow
def test_published_niqe_of_osediff_on_realsr(shared_data, published):
    """pyiqa 0.1.16 against the 0.1.10 of the log: single images moved by up to 0.02, the mean did not."""
    pytest.importorskip("pyiqa")
    folder = shared_data / "realsr"
    report = evaluate_folders(folder / "results_osediff", None, metrics=["niqe"])
    rows = published(folder)
    mean = sum(float(row["NIQE"]) for row in rows.values()) / 30
    assert report["mean"]["niqe"] == pytest.approx(mean, abs=1e-3)
    for name, row in rows.items():
        assert report["per_image"][name]["niqe"] == pytest.approx(float(row["NIQE"]), abs=0.05), name


@pytest.mark.shared_data
def test_other_conventions_have_other_figures_on_the_same_images(shared_data):
    files = sorted((shared_data / "realsr" / "HR").glob("*_001*.png"))
    pairs = [
        (read_image(file.parents[1] / "results_osediff" / file.name), read_image(file)) for file in files
    ]
    inner = (..., slice(4, -4), slice(4, -4))

    def mean(color, part=...):
        return sum(float(psnr(sr[part], gt[part], color=color)) for sr, gt in pairs) / len(pairs)

    assert len(pairs) == 2
    assert mean("ycbcr") - mean("yiq") == pytest.approx(1.3219, abs=1e-4)
    assert 1.3 < mean("ycbcr") - mean("rgb") < 1.9  # 1.5616 over all 100 images
    assert 0.0 < abs(mean("ycbcr", inner) - mean("ycbcr")) < 0.1  # 0.0208 over all 100 images
