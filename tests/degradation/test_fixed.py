"""The preset `fixed`: parameters that are given, not drawn."""

from dataclasses import asdict

import pytest
import torch
import torch.nn.functional as F
import yaml
from hydra.utils import instantiate
from omegaconf import OmegaConf

from rasr.degradation import RealESRGANDegradation
from rasr.degradation.parameters import draw_parameters, parse_parameters
from rasr.errors import RasrError
from rasr.seeding import SampleRandom
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
    """The shipped configuration with overrides."""
    cfg = shipped()
    OmegaConf.set_struct(cfg, True)
    for override in overrides:
        key, _, value = override.partition("=")
        OmegaConf.update(cfg, key, yaml.safe_load(value), merge=True)
    return instantiate(cfg)


def test_every_image_gets_the_same_but_noise_of_its_own(gt):
    degradation, pair = make(), gt.expand(2, -1, -1, -1)
    assert degradation.parameters_of(1) is degradation.parameters_of(2)
    one, other = degradation(pair, seeds=SEEDS)
    assert not torch.equal(one, other) and (one - other).abs().mean() < 0.05
    one, other = make("parameters.first.noise_level=0", "parameters.second.noise_level=0")(pair, seeds=SEEDS)
    assert torch.equal(one, other)


KERNELS = {
    "sigma_y": "{shape: aniso, sigma_y: 0.5, theta: 0.3}",
    "theta": "{shape: aniso, sigma_y: 0.5, theta: 0.3}",
    "beta": "{shape: generalized_iso, beta: 0.6}",
    "cutoff": "{shape: sinc, sigma_x: null, cutoff: 1.5}",
}
"""What a kernel must be besides, for a key of it to have a part."""
FLIPS = {
    "preset": ["preset=bicubic", "parameters=null"],
    "scale": ["scale=2"],
    "is_sharpened": ["is_sharpened=true"],
    "shape": ["shape=plateau_iso", "beta=1.5"],
    "size": ["size=3"],
    "sigma_x": ["sigma_x=2.5"],
    "sigma_y": ["sigma_y=1.0"],
    "theta": ["theta=1.0"],
    "beta": ["beta=1.5"],
    "cutoff": ["cutoff=0.8"],
    "resize_factor": ["resize_factor=0.3"],
    "resize_mode": ["resize_mode=area"],
    "is_gaussian": ["is_gaussian=false"],
    "noise_level": ["noise_level=20"],
    "is_gray": ["is_gray=true"],
    "jpeg_quality": ["jpeg_quality=30"],
    "final_mode": ["final_mode=area"],
    "final_kernel": ["final_kernel={shape: sinc, size: 21, cutoff: 1.5}"],
    "is_jpeg_last": ["is_jpeg_last=false"],
}


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


@pytest.mark.parametrize("key", [key for key in leaves(OmegaConf.to_container(shipped())) if key[0] != "_"])
def test_every_key_of_the_file_makes_a_difference(gt, key):
    place, _, name = key.rpartition(".")
    dot = "." if place else ""
    around = [f"{place}={KERNELS[name]}"] if name in KERNELS else []
    flipped = make(*around, *(f"{place}{dot}{flip}" for flip in FLIPS[name]))(gt, seeds=SEEDS[:1])
    before = make(*around)(gt, seeds=SEEDS[:1])
    assert flipped.shape != before.shape or not torch.equal(flipped, before)


@pytest.mark.parametrize("override", ["first.kernel=null", "second.kernel=null", "first.jpeg_quality=null"])
def test_a_step_can_be_left_out(gt, override):
    assert not torch.equal(make(f"parameters.{override}")(gt, seeds=SEEDS[:1]), make()(gt, seeds=SEEDS[:1]))


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
        ("second.resize_factor", 0, r"resize_factor=0 is not in \(0, 8\]"),
        ("first.resize_factor", 1e9, r"first: resize_factor=1000000000.0 is not in \(0, 8\]"),
        ("first.resize_factor", float("nan"), "resize_factor=nan is not in"),
        ("second.noise_level", -1, r"noise_level=-1 is not in \[0, 255\]"),
        ("second.noise_level", float("inf"), "noise_level=inf is not in"),
        ("first.is_gray", "maybe", "first: is_gray=maybe is neither true nor false"),
        ("second.is_gaussian", 1, "second: is_gaussian=1 is neither true nor false"),
        ("is_sharpened", "yes", "is_sharpened=yes is neither true nor false"),
        ("is_jpeg_last", None, "missing key is_jpeg_last"),
        ("is_jpeg_last", 0, "is_jpeg_last=0 is neither true nor false"),
        ("second.kernel.size", 7.5, "kernel size=7.5 does not fit"),
        ("second.kernel.sigma_x", float("nan"), "kernel sigma_x=nan is not finite"),
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
