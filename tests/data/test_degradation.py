import sys
from collections import Counter

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rasr.data import RealESRGANDegradation
from rasr.data.basicsr_compat import DiffJPEG, USMSharp, filter2D
from rasr.data.degradation import add_noise
from rasr.data.degradation_parameters import RESIZE_MODES, StageParameters, draw_parameters
from rasr.data.kernels import KERNEL_SIZES, KernelSpec, draw_blur_kernel, draw_sinc_kernel
from rasr.data.seeding import SampleRandom
from rasr.errors import RasrError

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


@pytest.mark.parametrize("preset", RANDOM_PRESETS)
def test_equals_the_steps_of_real_esrgan_on_basicsr(gt, preset):
    """The same draws through basicsr's functions in the order of its RealESRGANModel, kernels at 21x21."""
    jpeg, sharpen = DiffJPEG(differentiable=False), USMSharp()

    def filtered(image, kernel):
        if kernel is None:
            kernel = torch.ones(1, 1)
        return filter2D(image, F.pad(kernel, ((21 - len(kernel)) // 2,) * 4)[None])

    def reference(image, seed):
        rng = SampleRandom(seed)
        drawn = draw_parameters(rng)
        first, second = drawn.stages
        size = (image.shape[2] // 4, image.shape[3] // 4)
        out = sharpen(image) if preset == "realesrgan" else image
        out = filtered(out, first.kernel)
        out = F.interpolate(out, scale_factor=first.resize_factor, mode=first.resize_mode)
        out = add_noise(out, first, rng.generator)
        out = jpeg(out.clamp(0, 1), quality=torch.tensor([first.jpeg_quality]))
        if second.kernel is not None:
            out = filtered(out, second.kernel)
        factor = second.resize_factor
        out = F.interpolate(out, size=(int(size[0] * factor), int(size[1] * factor)), mode=second.resize_mode)
        out = add_noise(out, second, rng.generator)
        quality = torch.tensor([second.jpeg_quality])
        if drawn.is_jpeg_last:
            out = filtered(F.interpolate(out, size=size, mode=drawn.final_mode), drawn.final_kernel)
            out = jpeg(out.clamp(0, 1), quality=quality)
        else:
            out = jpeg(out.clamp(0, 1), quality=quality)
            out = filtered(F.interpolate(out, size=size, mode=drawn.final_mode), drawn.final_kernel)
        return (out * 255).round().clamp(0, 255) / 255

    image = F.interpolate(gt[:1], size=(96, 128), mode="bicubic").clamp(0, 1)
    degradation = RealESRGANDegradation(preset)
    for seed in range(8):
        with torch.no_grad():
            expected = reference(image, seed)
        difference = (degradation(image, seeds=seeds(seed)) - expected).abs()
        # Another summation order may tip a value over to the next level, seldom.
        assert difference.max() < 3.1 / 255 and (difference > 1e-4).float().mean() < 0.02, seed


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
    with pytest.raises(RasrError, match="'osedif' is unknown; use one of osediff, realesrgan, bicubic"):
        RealESRGANDegradation("osedif")
    with pytest.raises(RasrError, match="95x64 is not divisible by 4"):
        RealESRGANDegradation()(gt[..., :95])
    with pytest.raises(ValueError, match="not both"):
        RealESRGANDegradation()(gt, torch.Generator(), seeds=seeds(1, 2, 3, 4))
    with pytest.raises(ValueError, match="one seed per image"):
        RealESRGANDegradation()(gt, seeds=seeds(1, 2))


def test_nothing_of_it_trains_and_instances_share_no_tensors():
    one, other = RealESRGANDegradation("realesrgan"), RealESRGANDegradation("realesrgan")
    assert not any(parameter.requires_grad for parameter in one.parameters())
    one.to(torch.float16)
    assert all(parameter.dtype == torch.float32 for parameter in other.parameters())


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
    image = torch.full((1, 3, 128, 128), 0.5)
    noise = add_noise(image, stage(is_gray=is_gray), torch.Generator().manual_seed(0)) - image
    assert noise.std() == pytest.approx(20 / 255, rel=0.03)
    assert torch.equal(noise[0, 0], noise[0, 1]) == is_gray


@pytest.mark.parametrize("is_gray", [True, False])
def test_poisson_noise_grows_with_the_root_of_the_signal(is_gray):
    ramp = torch.linspace(0, 1, 256).repeat(256, 1)
    image = ramp.expand(1, 3, 256, 256).clone()
    drawn = stage(is_gaussian=False, noise_level=0.5, is_gray=is_gray)
    noise = add_noise(image, drawn, torch.Generator().manual_seed(0)) - image
    for column in (64, 128):  # 256 levels are in use: 256 photons at full white
        expected = 0.5 * (column / 255 / 256) ** 0.5
        assert noise[..., column - 2 : column + 3].std() == pytest.approx(expected, rel=0.1)
    assert torch.allclose(noise[0, 0], noise[0, 2], atol=1e-6) == is_gray


def test_kernels_are_normalised_and_of_every_size():
    rng = SampleRandom(0)
    spec = KernelSpec(sigma_range=(0.2, 3.0))
    kernels = [draw_blur_kernel(spec, rng) for _ in range(300)] + [draw_sinc_kernel(rng) for _ in range(100)]
    assert {kernel.shape for kernel in kernels} == {(size, size) for size in KERNEL_SIZES}
    for kernel in kernels:
        assert kernel.dtype == torch.float32 and kernel.isfinite().all()
        assert kernel.sum() == pytest.approx(1, abs=1e-4)
    negative = sum((kernel < -1e-6).any().item() for kernel in kernels[:300])
    assert 15 <= negative <= 50  # the sinc kernels, one in ten


def test_wider_sigmas_blur_more():
    def centre(sigma):
        spec = KernelSpec(sigma_range=(sigma, sigma + 0.01), sinc_prob=0.0)
        return draw_blur_kernel(spec, SampleRandom(4)).max()

    assert centre(0.5) > 1.5 * centre(1.5) > 1.5 * centre(3.0)


def test_parameters_follow_the_published_ranges():
    drawn = [draw_parameters(SampleRandom(seed)) for seed in range(1500)]
    first, second = ([sample.stages[i] for sample in drawn] for i in (0, 1))

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
def test_a_gpu_gives_what_the_cpu_gives(gt):
    batch, drawn = gt.repeat(4, 1, 1, 1), torch.arange(16)
    expected = RealESRGANDegradation("realesrgan")(batch, seeds=drawn)
    device = torch.device("cuda", torch.cuda.current_device())
    result = RealESRGANDegradation("realesrgan").to(device)(batch.to(device), seeds=drawn.to(device)).cpu()
    # JPEG's rounding makes large differences out of tiny ones, in few places.
    assert (result - expected).abs().mean() < 0.01
