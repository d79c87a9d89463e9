"""Metrics against values worked out by hand and against published ones."""

import csv
import math

import pytest
import torch

from rasr.errors import RasrError
from rasr.evaluation import METRICS, PROTOCOL, psnr, ssim
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


@pytest.mark.parametrize("metric", METRICS.values())
def test_batches_give_one_value_per_image_and_symmetry(metric):
    sr, gt = torch.rand(2, 3, 16, 20), torch.rand(2, 3, 16, 20)
    values = metric(sr, gt)
    assert values.shape == (2,) and values.dtype == torch.float64
    assert torch.equal(values, torch.stack([metric(sr[0], gt[0]), metric(sr[1], gt[1])]))
    assert torch.allclose(values, metric(gt, sr))
    assert (metric(gt + 0.5 * (sr - gt), gt) > values).all()


@pytest.mark.parametrize("metric", METRICS.values())
@pytest.mark.parametrize("shape", [(3, 16, 17), (1, 16, 16), (16, 16)])
def test_shapes_must_agree(metric, shape):
    with pytest.raises(ValueError, match="one shape"):
        metric(torch.rand(shape), torch.rand(3, 16, 16))


def test_ssim_needs_its_window():
    with pytest.raises(RasrError, match=r"needs 11 pixels each way, got 40x10; leave ssim out"):
        ssim(torch.rand(3, 10, 40), torch.rand(3, 10, 40))
    assert 0 <= float(ssim(torch.rand(3, 11, 11), torch.rand(3, 11, 11))) <= 1


@pytest.mark.shared_data
def test_published_values_of_osediff_on_realsr(shared_data):
    """Per-image log of github.com/cswry/OSEDiff (2024-10-23, pyiqa 0.1.10), to its last printed digits."""
    folder = shared_data / "realsr"
    with (folder / "metrics" / "realsr_per_image.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["in_subset"] == "1"]
    assert len(rows) == 30 and PROTOCOL["name"] == "osediff"
    values = []
    for row in rows:
        sr, gt = (read_image(folder / kind / row["name"]) for kind in ("results_osediff", "HR"))
        values.append([float(psnr(sr, gt)), float(ssim(sr, gt))])
        assert values[-1][0] == pytest.approx(float(row["PSNR"]), abs=1e-4), row["name"]
        assert values[-1][1] == pytest.approx(float(row["SSIM"]), abs=1e-6), row["name"]
    means = torch.tensor(values).mean(0).tolist()
    assert [round(mean, 4) for mean in means] == [25.3416, 0.7273]
