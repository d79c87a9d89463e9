"""Real-ESRGAN's degradation as its authors compose it from basicsr: the oracle, one image at a time.

The order and the numbers are those of `basicsr/data/realesrgan_dataset.py` (kernels),
`basicsr/models/realesrgan_model.py` (`feed_data`) and `options/train_realesrgan_x4plus.yml`; every function
is basicsr's. It draws from the global generators of `random`, NumPy and PyTorch, as the original does.
"""

import math
import random

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import rasr.degradation.basicsr_compat  # noqa: F401 - makes basicsr importable

# isort: split
from basicsr.data.degradations import (
    circular_lowpass_kernel,
    random_add_gaussian_noise_pt,
    random_add_poisson_noise_pt,
    random_mixed_kernels,
)
from basicsr.utils import DiffJPEG, USMSharp
from basicsr.utils.img_process_util import filter2D

SCALE = 4
KERNEL_SIZES = [2 * v + 1 for v in range(3, 11)]
KERNEL_LIST = ["iso", "aniso", "generalized_iso", "generalized_aniso", "plateau_iso", "plateau_aniso"]
KERNEL_PROB = [0.45, 0.25, 0.12, 0.03, 0.12, 0.03]
MODES = ["area", "bilinear", "bicubic"]


def seed_globals(seed: int) -> None:
    """Seed the generators that basicsr draws from."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - basicsr's
    torch.manual_seed(seed)


class BasicSRRecipe(nn.Module):
    """`recipe(gt)` is the LQ image of one clean image (1, 3, H, W) in [0, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.jpeger = DiffJPEG(differentiable=False).requires_grad_(False)
        self.usm_sharpener = USMSharp()

    @torch.no_grad()
    def forward(self, gt: Tensor) -> Tensor:
        ori_h, ori_w = gt.shape[2:4]
        kernels = self.blur_kernel([0.2, 3]), self.blur_kernel([0.2, 1.5]), self.sinc()
        kernel1, kernel2, sinc_kernel = (kernel.to(gt.device) for kernel in kernels)

        # the first degradation process
        out = filter2D(gt, kernel1)
        scale = self.draw_scale([0.2, 0.7, 0.1], [0.15, 1.5])
        out = F.interpolate(out, scale_factor=scale, mode=random.choice(MODES))
        out = self.noise(out, sigma_range=(1, 30), scale_range=(0.05, 3.0))
        out = self.compress(out)

        # the second degradation process
        if np.random.uniform() < 0.8:  # noqa: NPY002
            out = filter2D(out, kernel2)
        scale = self.draw_scale([0.3, 0.4, 0.3], [0.3, 1.2])
        size = (int(ori_h / SCALE * scale), int(ori_w / SCALE * scale))
        out = F.interpolate(out, size=size, mode=random.choice(MODES))
        out = self.noise(out, sigma_range=(1, 25), scale_range=(0.05, 2.5))

        # JPEG compression and the final sinc filter, in either order
        size = (ori_h // SCALE, ori_w // SCALE)
        if np.random.uniform() < 0.5:  # noqa: NPY002
            out = F.interpolate(out, size=size, mode=random.choice(MODES))
            out = self.compress(filter2D(out, sinc_kernel))
        else:
            out = F.interpolate(self.compress(out), size=size, mode=random.choice(MODES))
            out = filter2D(out, sinc_kernel)
        return torch.clamp((out * 255.0).round(), 0, 255) / 255.0

    def blur_kernel(self, sigma_range: list[float]) -> Tensor:
        """A kernel as the data set draws it: (1, 21, 21)."""
        kernel_size = random.choice(KERNEL_SIZES)
        if np.random.uniform() < 0.1:  # noqa: NPY002
            low = np.pi / 3 if kernel_size < 13 else np.pi / 5
            kernel = circular_lowpass_kernel(np.random.uniform(low, np.pi), kernel_size)  # noqa: NPY002
        else:
            kernel = random_mixed_kernels(
                KERNEL_LIST,
                KERNEL_PROB,
                kernel_size,
                sigma_range,
                sigma_range,
                [-math.pi, math.pi],
                [0.5, 4],
                [1, 2],
                noise_range=None,
            )
        pad = (21 - kernel_size) // 2
        return torch.FloatTensor(np.pad(kernel, ((pad, pad), (pad, pad))))[None]

    def sinc(self) -> Tensor:
        """The kernel of the final filter, or a pulse: (1, 21, 21)."""
        if np.random.uniform() < 0.8:  # noqa: NPY002
            kernel_size = random.choice(KERNEL_SIZES)
            omega_c = np.random.uniform(np.pi / 3, np.pi)  # noqa: NPY002
            return torch.FloatTensor(circular_lowpass_kernel(omega_c, kernel_size, pad_to=21))[None]
        pulse = torch.zeros(1, 21, 21)
        pulse[:, 10, 10] = 1
        return pulse

    def draw_scale(self, prob: list[float], resize_range: list[float]) -> float:
        """The factor of a resize."""
        updown_type = random.choices(["up", "down", "keep"], prob)[0]
        if updown_type == "up":
            return np.random.uniform(1, resize_range[1])  # noqa: NPY002
        return np.random.uniform(resize_range[0], 1) if updown_type == "down" else 1  # noqa: NPY002

    def noise(self, out: Tensor, sigma_range: tuple, scale_range: tuple) -> Tensor:
        """Gaussian or Poisson noise."""
        if np.random.uniform() < 0.5:  # noqa: NPY002
            return random_add_gaussian_noise_pt(out, sigma_range=sigma_range, clip=True, gray_prob=0.4)
        return random_add_poisson_noise_pt(out, scale_range=scale_range, gray_prob=0.4, clip=True)

    def compress(self, out: Tensor) -> Tensor:
        """JPEG of a random quality."""
        quality = out.new_zeros(out.size(0)).uniform_(30, 95)
        return self.jpeger(torch.clamp(out, 0, 1), quality=quality)
