import math
import sys
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rasr.degradation import RealESRGANDegradation
from rasr.degradation.kernels import KERNEL_SIZES, Kernel, KernelSpec, draw_blur_kernel, draw_sinc_kernel
from rasr.degradation.parameters import RESIZE_MODES, StageParameters, draw_parameters
from rasr.degradation.steps import _photons_at_white, add_noise, blur, jpeg, sharpen
from rasr.errors import RasrError
from rasr.seeding import SampleRandom, sample_seed

# isort: split
from basicsr.utils import DiffJPEG, USMSharp  # importable only after the imports above
from basicsr.utils.img_process_util import filter2D

RANDOM_PRESETS = ["osediff", "realesrgan"]


@pytest.fixture(scope="module")
def gt():
    """Smooth shapes with some texture: (4, 3, 64, 96)."""
    generator = torch.Generator().manual_seed(5)
    coarse = F.interpolate(torch.rand(4, 3, 8, 12, generator=generator), size=(64, 96), mode="bicubic")
    return (coarse + 0.05 * torch.rand(4, 3, 64, 96, generator=generator)).clamp(0, 1)


def seeds(*values):
    return torch.tensor(values, dtype=torch.int64)


@pytest.mark.parametrize("preset", [*RANDOM_PRESETS, "bicubic"])
def test_output_is_an_8_bit_image_of_a_quarter_of_the_size(gt, preset):
    lq = RealESRGANDegradation(preset)(gt, torch.Generator().manual_seed(0))
    assert lq.shape == (4, 3, 16, 24) and lq.dtype == torch.float32
    assert lq.min() >= 0 and lq.max() <= 1
    torch.testing.assert_close(lq * 255, (lq * 255).round(), atol=1e-4, rtol=0)
    assert not lq.requires_grad


@pytest.mark.parametrize("preset", RANDOM_PRESETS)
def test_a_generator_determines_the_result(gt, preset):
    degradation = RealESRGANDegradation(preset)
    one, same, other = (degradation(gt, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("preset", RANDOM_PRESETS)
def test_a_sample_does_not_depend_on_its_batch(gt, preset):
    degradation = RealESRGANDegradation(preset)
    batch = degradation(gt, seeds=seeds(11, 12, 13, 14))
    torch.rand(7)  # nor on the state of the process
    assert torch.equal(degradation(gt[[2, 0]], seeds=seeds(13, 11)), batch[[2, 0]])
    assert torch.equal(degradation(gt[1:2], seeds=seeds(12)), batch[1:2])


def test_samples_of_a_batch_differ_and_the_global_generator_is_left_alone(gt):
    same = gt[:1].expand(4, -1, -1, -1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    lq = RealESRGANDegradation()(same, seeds=seeds(1, 2, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002
    assert all(not torch.equal(lq[0], other) for other in lq[1:])


def test_without_generator_the_global_one_draws(gt):
    results = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        results.append(RealESRGANDegradation()(gt[:1]))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def nearly_equal(result, expected):
    """Another summation order may tip a value, or a JPEG coefficient and with it a block, over to the next
    level: seldom, and by little."""
    difference = (result - expected).abs()
    return difference.max() < 12 / 255 and (difference > 1e-4).float().mean() < 0.02


@pytest.mark.parametrize("preset", RANDOM_PRESETS)
def test_equals_the_steps_of_real_esrgan_on_basicsr(gt, preset):
    """The same draws through basicsr's functions in the order of its RealESRGANModel."""
    jpeger, usm_sharpener = DiffJPEG(differentiable=False), USMSharp()

    def filtered(image, kernel):
        return image if kernel is None else filter2D(image, kernel.weights()[None])

    def noisy(image, stage, generator):
        return add_noise(image[0], stage, generator)[None]

    def reference(image, seed):
        drawn = draw_parameters(SampleRandom(seed), is_sharpened=False)
        generator = torch.Generator().manual_seed(sample_seed(seed, "noise"))
        first, second = drawn.first, drawn.second
        size = (image.shape[2] // 4, image.shape[3] // 4)
        out = usm_sharpener(image) if preset == "realesrgan" else image
        out = filtered(out, first.kernel)
        out = F.interpolate(out, scale_factor=first.resize_factor, mode=first.resize_mode)
        out = noisy(out, first, generator)
        out = jpeger(out.clamp(0, 1), quality=torch.tensor([first.jpeg_quality]))
        out = filtered(out, second.kernel)
        factor = second.resize_factor
        out = F.interpolate(out, size=(int(size[0] * factor), int(size[1] * factor)), mode=second.resize_mode)
        out = noisy(out, second, generator)
        quality = torch.tensor([second.jpeg_quality])
        if drawn.is_jpeg_last:
            out = filtered(F.interpolate(out, size=size, mode=drawn.final_mode), drawn.final_kernel)
            out = jpeger(out.clamp(0, 1), quality=quality)
        else:
            out = jpeger(out.clamp(0, 1), quality=quality)
            out = filtered(F.interpolate(out, size=size, mode=drawn.final_mode), drawn.final_kernel)
        return (out * 255).round().clamp(0, 255) / 255

    image = F.interpolate(gt[:1], size=(96, 128), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        expected = torch.cat([reference(image, seed) for seed in range(24)])
    result = RealESRGANDegradation(preset)(image.expand(24, -1, -1, -1), seeds=torch.arange(24))
    assert nearly_equal(result, expected)


@pytest.mark.parametrize("preset", RANDOM_PRESETS)
def test_samples_that_go_together_come_out_as_alone(gt, preset):
    """A GPU takes the batch as a whole; the CPU, which takes it apart, must give the same."""
    degradation, drawn = RealESRGANDegradation(preset), list(range(20, 32))
    together = degradation._degrade(gt.repeat(3, 1, 1, 1), [16, 24], drawn)
    assert nearly_equal(together, degradation(gt.repeat(3, 1, 1, 1), seeds=seeds(*drawn)))


def test_steps_equal_basicsr_on_images_of_different_sizes():
    images = [torch.rand(3, *size) for size in ((40, 33), (64, 64), (37, 90))]
    qualities = [31.0, None, 87.5]
    for result, image, quality in zip(jpeg(images, qualities), images, qualities, strict=True):
        expected = image if quality is None else DiffJPEG(False)(image[None], quality)[0].detach()
        difference = (result - expected).abs()
        assert difference.mean() < 1e-3 and (difference > 1e-4).float().mean() < 0.02

    kernels = [Kernel("sinc", 21, cutoff=1.5), None, Kernel("aniso", 9, sigma_x=2.0, sigma_y=0.7, theta=0.5)]
    for result, image, kernel in zip(blur(images, kernels), images, kernels, strict=True):
        expected = image if kernel is None else filter2D(image[None], kernel.weights()[None])[0]
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)

    for result, image in zip(sharpen(images), images, strict=True):
        torch.testing.assert_close(result, USMSharp()(image[None])[0], atol=1e-4, rtol=0)


def test_realesrgan_degrades_a_sharpened_image_and_osediff_does_not(gt):
    plain, sharpened = (
        RealESRGANDegradation(preset)(gt, seeds=seeds(1, 2, 3, 4)) for preset in RANDOM_PRESETS
    )
    assert not torch.equal(plain, sharpened)
    assert (plain - sharpened).abs().mean() < 0.1  # the same draws otherwise


def test_bicubic_is_plain_downscaling(gt):
    lq = RealESRGANDegradation("bicubic")(gt)
    expected = F.interpolate(gt, scale_factor=0.25, mode="bicubic", antialias=True)
    assert (lq - expected.clamp(0, 1)).abs().max() <= 0.5 / 255 + 1e-6


def test_scale_is_obeyed(gt):
    assert RealESRGANDegradation("osediff", scale=2)(gt, seeds=seeds(1, 2, 3, 4)).shape == (4, 3, 32, 48)


@pytest.mark.parametrize("preset", RANDOM_PRESETS)
@pytest.mark.parametrize("size", [(4, 4), (4, 20), (12, 8), (52, 24)])
def test_images_smaller_than_the_kernels(preset, size):
    images = torch.rand(1, 3, *size).expand(12, -1, -1, -1)
    lq = RealESRGANDegradation(preset)(images, seeds=torch.arange(12))
    assert lq.shape == (12, 3, size[0] // 4, size[1] // 4) and lq.isfinite().all()


def test_mistakes_are_named(gt):
    with pytest.raises(RasrError, match="'osedif' is unknown; use one of osediff, realesrgan, mild, range"):
        RealESRGANDegradation("osedif")
    with pytest.raises(RasrError, match="95x64 is not divisible by 4"):
        RealESRGANDegradation()(gt[..., :95])
    with pytest.raises(ValueError, match="not both"):
        RealESRGANDegradation()(gt, torch.Generator(), seeds=seeds(1, 2, 3, 4))
    with pytest.raises(ValueError, match="one seed per image"):
        RealESRGANDegradation()(gt, seeds=seeds(1, 2))


def test_the_module_has_no_tensors_that_could_train_or_stay_on_a_device():
    assert list(RealESRGANDegradation("realesrgan").state_dict()) == []


def test_autocast_does_not_reach_it(gt):
    degradation = RealESRGANDegradation()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lq = degradation(gt, seeds=seeds(1, 2, 3, 4))
    assert torch.equal(lq, degradation(gt, seeds=seeds(1, 2, 3, 4)))


def stage(**fields):
    plain = {"kernel": None, "resize_factor": 1.0, "resize_mode": "area", "jpeg_quality": 90.0}
    return StageParameters(**{**plain, "is_gaussian": True, "noise_level": 20.0, "is_gray": False, **fields})


@pytest.mark.parametrize("is_gray", [True, False])
def test_gaussian_noise_has_the_stated_deviation(is_gray):
    image = torch.full((3, 128, 128), 0.5)
    noise = add_noise(image, stage(is_gray=is_gray), torch.Generator().manual_seed(0)) - image
    assert noise.std() == pytest.approx(20 / 255, rel=0.03)
    assert torch.equal(noise[0], noise[1]) == is_gray


@pytest.mark.parametrize("is_gray", [True, False])
def test_poisson_noise_grows_with_the_root_of_the_signal(is_gray):
    ramp = torch.linspace(0, 1, 256).repeat(256, 1)
    image = ramp.expand(3, 256, 256).clone()
    drawn = stage(is_gaussian=False, noise_level=0.5, is_gray=is_gray)
    noise = add_noise(image, drawn, torch.Generator().manual_seed(0)) - image
    for column in (64, 128):  # 256 levels are in use: 256 photons at full white
        expected = 0.5 * (column / 255 / 256) ** 0.5
        assert noise[..., column - 2 : column + 3].std() == pytest.approx(expected, rel=0.1)
    assert torch.allclose(noise[0], noise[2], atol=1e-6) == is_gray


def test_the_exposure_is_guessed_as_scikit_image_does():
    for levels in range(1, 257):
        image = (torch.arange(levels) / 255).expand(1, 3, levels)
        assert _photons_at_white(image) == 2 ** math.ceil(math.log2(levels))


def test_kernels_are_normalised_and_of_every_size():
    rng = SampleRandom(0)
    spec = KernelSpec(sigma_range=(0.2, 3.0))
    kernels = [draw_blur_kernel(spec, rng) for _ in range(300)] + [draw_sinc_kernel(rng) for _ in range(100)]
    assert {kernel.size for kernel in kernels} == set(KERNEL_SIZES)
    for kernel in kernels:
        weights = kernel.weights()
        assert weights.shape == (21, 21) and weights.dtype == torch.float32 and weights.isfinite().all()
        assert weights.sum() == pytest.approx(1, abs=1e-4)
        margin = (21 - kernel.size) // 2
        assert weights.count_nonzero() <= kernel.size**2 and not weights[:margin].any()
    negative = sum((kernel.weights() < -1e-6).any().item() for kernel in kernels[:300])
    assert 15 <= negative <= 50  # the sinc kernels, one in ten


def test_wider_sigmas_blur_more():
    def centre(sigma):
        spec = KernelSpec(sigma_range=(sigma, sigma + 0.01), sinc_prob=0.0)
        return draw_blur_kernel(spec, SampleRandom(4)).weights().max()

    assert centre(0.5) > 1.5 * centre(1.5) > 1.5 * centre(3.0)


def test_parameters_follow_the_published_ranges():
    drawn = [draw_parameters(SampleRandom(seed), is_sharpened=False) for seed in range(1500)]
    first, second = [sample.first for sample in drawn], [sample.second for sample in drawn]

    def share(condition, samples):
        return sum(map(condition, samples)) / len(samples)

    def levels(samples, is_gaussian):
        return [s.noise_level for s in samples if s.is_gaussian == is_gaussian]

    def spans(values, low, high):
        return (
            low <= min(values) < low + 0.1 * (high - low) and high - 0.1 * (high - low) < max(values) <= high
        )

    near = {"abs": 0.05}
    assert share(lambda s: s.kernel is None, first) == 0
    assert share(lambda s: s.kernel is None, second) == pytest.approx(0.2, **near)
    assert share(lambda s: s.resize_factor < 1, first) == pytest.approx(0.7, **near)
    assert share(lambda s: s.resize_factor > 1, first) == pytest.approx(0.2, **near)
    assert share(lambda s: s.resize_factor < 1, second) == pytest.approx(0.4, **near)
    assert share(lambda s: s.resize_factor > 1, second) == pytest.approx(0.3, **near)
    assert spans([s.resize_factor for s in first], 0.15, 1.5)
    assert spans([s.resize_factor for s in second], 0.3, 1.2)
    assert spans(levels(first, True), 1, 30) and spans(levels(first, False), 0.05, 3.0)
    assert spans(levels(second, True), 1, 25) and spans(levels(second, False), 0.05, 2.5)
    for samples in (first, second):
        assert share(lambda s: s.is_gaussian, samples) == pytest.approx(0.5, **near)
        assert share(lambda s: s.is_gray, samples) == pytest.approx(0.4, **near)
        assert spans([s.jpeg_quality for s in samples], 30, 95)
        modes = Counter(s.resize_mode for s in samples)
        assert all(modes[mode] / 1500 == pytest.approx(1 / 3, **near) for mode in RESIZE_MODES)
    assert share(lambda s: s.final_kernel is not None, drawn) == pytest.approx(0.8, **near)
    assert share(lambda s: s.is_jpeg_last, drawn) == pytest.approx(0.5, **near)


def test_importing_basicsr_leaves_no_trace():
    assert "basicsr.data.degradations" in sys.modules
    assert "torchvision.transforms.functional_tensor" not in sys.modules
    assert np.geterr()["divide"] == np.geterr()["invalid"] == "warn"


@pytest.mark.gpu
def test_a_gpu_gives_what_the_cpu_gives_where_there_is_no_noise(gt):
    batch, device = gt.repeat(4, 1, 1, 1), torch.device("cuda", torch.cuda.current_device())
    for seed in range(8):
        drawn = asdict(draw_parameters(SampleRandom(seed), is_sharpened=True))
        drawn["first"]["noise_level"] = drawn["second"]["noise_level"] = 0
        degradation = RealESRGANDegradation("fixed", parameters=drawn)
        result = degradation(batch.to(device), seeds=torch.arange(16, device=device))
        assert result.device == device
        assert nearly_equal(result.cpu(), degradation(batch, seeds=torch.arange(16)))


@pytest.mark.gpu
def test_a_gpu_repeats_itself_whatever_the_batch(gt):
    batch = gt.cuda()
    lq = RealESRGANDegradation("realesrgan")(batch, seeds=seeds(11, 12, 13, 14))
    part = RealESRGANDegradation("realesrgan")(batch[[2, 0]], seeds=seeds(13, 11))
    assert nearly_equal(part, lq[[2, 0]])
