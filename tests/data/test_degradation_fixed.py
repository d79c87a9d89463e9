"""The preset `fixed`: parameters that are given, not drawn."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rasr.data import RealESRGANDegradation
from rasr.data.degradation_parameters import draw_parameters, parse_parameters
from rasr.data.seeding import SampleRandom
from rasr.errors import RasrError
from tests.helpers import REPOSITORY

SEEDS = torch.tensor([1, 2])


@pytest.fixture(scope="module")
def gt():
    generator = torch.Generator().manual_seed(3)
    return F.interpolate(torch.rand(1, 3, 24, 24, generator=generator), size=96, mode="bicubic").clamp(0, 1)


def shipped():
    cfg = OmegaConf.load(REPOSITORY / "conf" / "degradation" / "fixed.yaml")
    cfg.scale = 4
    return cfg


def make(*overrides):
    """The shipped configuration with overrides below `parameters`."""
    cfg = shipped()
    OmegaConf.set_struct(cfg, True)
    for override in overrides:
        key, _, value = override.partition("=")
        OmegaConf.update(cfg.parameters, key, yaml.safe_load(value), merge=True)
    return instantiate(cfg)


def test_every_image_gets_the_same_but_noise_of_its_own(gt):
    degradation, pair = make(), gt.expand(2, -1, -1, -1)
    assert degradation.parameters_of(1) is degradation.parameters_of(2)
    one, other = degradation(pair, seeds=SEEDS)
    assert not torch.equal(one, other) and (one - other).abs().mean() < 0.05
    one, other = make("first.noise_level=0", "second.noise_level=0")(pair, seeds=SEEDS)
    assert torch.equal(one, other)


@pytest.mark.parametrize(
    "override",
    [
        "is_sharpened=true",
        "first.kernel=null",
        "first.kernel.size=7",
        "first.kernel.sigma_x=2.5",
        "first.kernel={shape: sinc, sigma_x: null, cutoff: 1.5}",
        "first.kernel={shape: aniso, sigma_y: 0.5, theta: 0.3}",
        "first.kernel={shape: generalized_iso, beta: 0.6}",
        "first.kernel={shape: plateau_iso, beta: 1.5}",
        "first.resize_factor=0.8",
        "first.resize_mode=area",
        "first.is_gaussian=false",
        "first.noise_level=20",
        "first.is_gray=true",
        "first.jpeg_quality=30",
        "first.jpeg_quality=null",
        "second.kernel=null",
        "second.resize_factor=0.5",
        "second.resize_mode=area",
        "second.is_gaussian=false",
        "second.noise_level=20",
        "second.is_gray=true",
        "second.jpeg_quality=30",
        "second.jpeg_quality=null",
        "final_mode=area",
        "final_kernel={shape: sinc, size: 21, cutoff: 1.5}",
        "is_jpeg_last=false",
    ],
)
def test_every_key_makes_a_difference(gt, override):
    assert not torch.equal(make(override)(gt, seeds=SEEDS[:1]), make()(gt, seeds=SEEDS[:1]))


@pytest.mark.parametrize("preset", ["osediff", "realesrgan"])
def test_recorded_parameters_make_the_same_image_again(gt, preset):
    drawing = RealESRGANDegradation(preset)
    for seed in range(30):
        parameters = drawing.parameters_of(seed)
        assert parse_parameters(asdict(parameters)) == parameters
        fixed = RealESRGANDegradation("fixed", parameters=asdict(parameters))
        assert torch.equal(*(x(gt, seeds=torch.tensor([seed])) for x in (drawing, fixed)))


def change(parameters, key, value):
    *path, last = key.split(".")
    for name in path:
        parameters = parameters[name]
    if value is None:
        del parameters[last]
    else:
        parameters[last] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("first", None, "parameters: missing key first"),
        ("first", 3, "first=3 is not a mapping; give the keys kernel"),
        ("first.kernel", None, "first: missing key kernel"),
        ("first.kernel", "iso", "first.kernel=iso is not a mapping"),
        ("first.kernl", 1, "first: unknown key kernl"),
        ("second.kernel.shape", "isotropic", "second.kernel: kernel shape=isotropic is unknown"),
        ("second.kernel.size", 8, "kernel size=8 does not fit; give an odd number up to 21"),
        ("second.kernel.size", 23, "kernel size=23 does not fit"),
        ("second.kernel.sigma_x", 0, "kernel sigma_x=0 is not above 0"),
        ("second.kernel.sigma_x", None, "kernel sigma_x=None does not go with shape=iso; give it sigma_x"),
        ("second.kernel.beta", 1.0, "kernel beta=1.0 does not go with shape=iso"),
        ("second.resize_mode", "nearest", "second: resize_mode=nearest is unknown; use one of area"),
        ("second.resize_factor", 0, "resize_factor=0 is not above 0"),
        ("second.noise_level", -1, "noise_level=-1 is negative"),
        ("second.noise_level", "much", "second: a value is of a wrong type"),
        ("second.jpeg_quality", 0, r"jpeg_quality=0 is not in \(0, 100\]"),
        ("final_mode", "nearest", "final_mode=nearest is unknown"),
        ("final_kernel", {"shape": "sinc", "size": 21}, "final_kernel: kernel cutoff=None does not go"),
    ],
)
def test_mistakes_are_named(key, value, message):
    parameters = OmegaConf.to_container(shipped().parameters)
    parse_parameters(parameters)
    change(parameters, key, value)
    with pytest.raises(RasrError, match=message):
        parse_parameters(parameters)


def test_only_fixed_takes_parameters():
    with pytest.raises(RasrError, match="give preset=fixed its parameters, and no other preset any"):
        RealESRGANDegradation("fixed")
    drawn = asdict(draw_parameters(SampleRandom(0), is_sharpened=False))
    with pytest.raises(RasrError, match="no other preset any"):
        RealESRGANDegradation("osediff", parameters=drawn)
