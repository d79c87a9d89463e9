"""The degradation's statistics are those of Real-ESRGAN's own composition (basicsr_recipe.py)."""

import math
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import ks_2samp

from rasr.degradation import RealESRGANDegradation, parameters
from rasr.image_io import read_image
from tests.degradation.basicsr_recipe import BasicSRRecipe, seed_globals

pytestmark = pytest.mark.slow  # hundreds of draws of a recipe that takes one image at a time

DRAWS = 200
SIDE = 256
PHOTOS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "motorcycle_left.png", "rocket.jpg"),
)
STATISTICS = ("psnr", "high_frequency_energy", "noise", "chroma_noise")
# Immerkaer: Fast Noise Variance Estimation (1996); blind to planes and straight edges.
NOISE_MASK = torch.tensor([[1.0, -2, 1], [-2, 4, -2], [1, -2, 1]]) * math.sqrt(math.pi / 2) / 6


def photograph(name):
    """The centre of a photograph: (1, 3, 256, 256)."""
    folder = Path(find_spec("skimage").submodule_search_locations[0], "data")
    image = read_image(folder / name)
    top, left = (image.shape[1] - SIDE) // 2, (image.shape[2] - SIDE) // 2
    return image[None, :, top : top + SIDE, left : left + SIDE]


def measure(lq, gt):
    """The three statistics of each image of `lq` (B, 3, h, w): {name: (B,)}."""
    up = F.interpolate(lq, size=gt.shape[-2:], mode="bicubic").clamp(0, 1)
    psnr = -10 * (up - gt).square().mean((1, 2, 3)).log10()
    gray = lq.mean(1)
    spectrum = torch.fft.fft2(gray, norm="ortho").abs().square()
    rows, columns = torch.fft.fftfreq(gray.shape[-2]), torch.fft.fftfreq(gray.shape[-1])
    is_high = torch.hypot(rows[:, None], columns[None]) > 0.25  # above half the Nyquist frequency
    energy = spectrum[:, is_high].mean(1).log10()
    noise, chroma_noise = (
        F.conv2d(planes[:, None], NOISE_MASK[None, None]).abs().mean((1, 2, 3))
        for planes in (gray, lq[:, 0] - lq[:, 1])
    )
    return dict(zip(STATISTICS, (psnr, energy, noise, chroma_noise), strict=True))


def draw_ours(photo, preset):
    gt = photograph(photo).expand(DRAWS, -1, -1, -1)
    return measure(RealESRGANDegradation(preset)(gt, seeds=torch.arange(DRAWS)), gt[:1])


@cache
def draw_oracle(photo, preset):
    recipe, gt = BasicSRRecipe(), photograph(photo)
    clean = recipe.usm_sharpener(gt) if preset == "realesrgan" else gt
    seed_globals(1)
    return measure(torch.cat([recipe(clean) for _ in range(DRAWS)]), gt)


def p_values(ours, oracle):
    return {name: ks_2samp(ours[name].numpy(), oracle[name].numpy()).pvalue for name in STATISTICS}


def pooled_p_values(preset):
    """Of the draws of all photographs, each photograph's brought to one scale by those of the oracle."""
    ours, oracle = {name: [] for name in STATISTICS}, {name: [] for name in STATISTICS}
    for photo in PHOTOS:
        drawn, expected = draw_ours(photo, preset), draw_oracle(photo, preset)
        for name in STATISTICS:
            centre, spread = expected[name].mean(), expected[name].std()
            ours[name].append((drawn[name] - centre) / spread)
            oracle[name].append((expected[name] - centre) / spread)
    return p_values(*({name: torch.cat(values) for name, values in x.items()} for x in (ours, oracle)))


def halved(bounds):
    return tuple(bound / 2 for bound in bounds)


def with_mistake(mistake):
    """The stages' specification with one mistake."""
    first, second = parameters.STAGES
    both = {
        "halved noise": lambda stage: replace(
            stage, noise_range=halved(stage.noise_range), poisson_range=halved(stage.poisson_range)
        ),
        "gray noise only": lambda stage: replace(stage, gray_noise_prob=1.0),
        "no blur": lambda stage: replace(stage, blur_prob=0.0),
        "directions of the resizes swapped": lambda stage: replace(stage, resize_weights=(0.7, 0.2, 0.1)),
        "stronger JPEG": lambda stage: replace(stage, jpeg_range=(10.0, 60.0)),
    }
    if mistake == "second blur's probability swapped":
        return first, replace(second, blur_prob=0.2)
    return both[mistake](first), both[mistake](second)


def test_statistics_equal_the_recipe():
    values = p_values(draw_ours("gravel.png", "osediff"), draw_oracle("gravel.png", "osediff"))
    assert min(values.values()) > 0.01, values


@pytest.mark.parametrize("mistake", ["halved noise", "gray noise only", "no blur"])
def test_the_comparison_sees_a_mistake(mistake, monkeypatch):
    monkeypatch.setattr(parameters, "STAGES", with_mistake(mistake))
    values = p_values(draw_ours("gravel.png", "osediff"), draw_oracle("gravel.png", "osediff"))
    assert min(values.values()) < 0.01, values


@pytest.mark.parametrize("preset", ["osediff", "realesrgan"])
@pytest.mark.parametrize("photo", PHOTOS)
def test_statistics_equal_the_recipe_on_every_photograph(photo, preset):
    values = p_values(draw_ours(photo, preset), draw_oracle(photo, preset))
    assert min(values.values()) > 0.01, values


@pytest.mark.parametrize("preset", ["osediff", "realesrgan"])
def test_statistics_equal_the_recipe_on_all_photographs_together(preset):
    values = pooled_p_values(preset)
    assert min(values.values()) > 0.01, values


@pytest.mark.parametrize(
    "mistake",
    ["second blur's probability swapped", "directions of the resizes swapped", "stronger JPEG"],
)
def test_the_pooled_comparison_sees_small_mistakes(mistake, monkeypatch):
    monkeypatch.setattr(parameters, "STAGES", with_mistake(mistake))
    values = pooled_p_values("osediff")
    assert min(values.values()) < 0.001, values
