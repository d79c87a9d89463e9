"""The training objective (rasr paper, Eq. 5): raw terms in a dict, weights applied in one place.

    L = w_mse * L_MSE + w_lpips * L_LPIPS + w_gram * L_Gram + w_gan * L_GAN

A term whose weight is 0 is not built and not computed. Small nets that are trained from nothing have two
more: `psnr` and `gradient`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rasr.errors import RasrError
from rasr.losses.gradient import gradient_loss
from rasr.losses.gram import DEFAULT_LAYERS, GramLoss
from rasr.losses.perceptual import LPIPS
from rasr.losses.vgg import VGG16Features

TERMS = ("mse", "psnr", "gradient", "lpips", "gram", "gan")


def negative_psnr(sr: Tensor, gt: Tensor) -> Tensor:
    """10 log10(MSE) of each image, in dB, averaged (HINet, Chen et al. 2021, section 3.4).

    The mean squared error of a batch is mostly that of its worst images; here all weigh the same, as in the
    mean PSNR of a test set.
    """
    dtype = torch.promote_types(sr.dtype, torch.float32)
    mse = (sr.to(dtype) - gt.to(dtype)).square().flatten(1).mean(dim=1)
    return 10 * (mse + 1e-8).log10().mean()


class RestorationLoss(nn.Module):
    """Compares a restored batch with its ground truth.

    `sr` and `gt` are (B, 3, H, W) in [0, 1]; each term normalises for itself. Every term is computed in at
    least float32, under autocast too. L_GAN needs a discriminator, which is no part of a loss: whoever trains
    adds it to the terms, `terms["gan"] = generator_loss(discriminator(sr))`.

    Args:
        weights: weight per term name; terms of weight 0 are dropped.
        vgg_weights: file of torchvision's VGG-16 for LPIPS and Gram; None takes torch's cache, or downloads.
        gram_layers: weight lambda_l per VGG layer of the Gram term.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        vgg_weights: str | None = None,
        gram_layers: Mapping[str, float] = DEFAULT_LAYERS,
    ) -> None:
        super().__init__()
        unknown = sorted(set(weights) - set(TERMS))
        if unknown:
            raise RasrError(f"loss.weights names unknown terms {unknown}; known are {', '.join(TERMS)}")
        for name, weight in weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise RasrError(f"loss.weights.{name}={weight}; give a number that is not negative")
        self.weights = {name: float(weight) for name, weight in weights.items() if weight != 0}
        if not self.weights:
            raise RasrError("every loss weight is 0; give at least one of loss.weights a positive value")
        needs_features = "lpips" in self.weights or "gram" in self.weights
        self.vgg = VGG16Features(vgg_weights) if needs_features else None
        self.lpips = LPIPS() if "lpips" in self.weights else None
        self.gram = GramLoss(gram_layers) if "gram" in self.weights else None

    def forward(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Raw (unweighted) terms by name, scalars in at least float32; all but `gan`."""
        terms = {}
        if "mse" in self.weights:
            dtype = torch.promote_types(sr.dtype, torch.float32)
            terms["mse"] = F.mse_loss(sr.to(dtype), gt.to(dtype))
        if "psnr" in self.weights:
            terms["psnr"] = negative_psnr(sr, gt)
        if "gradient" in self.weights:
            terms["gradient"] = gradient_loss(sr, gt)
        if self.vgg is not None:
            # Both terms look at the same activations: VGG-16 runs once per image.
            sr_features, gt_features = self.vgg(sr), self.vgg(gt)
        if self.lpips is not None:
            terms["lpips"] = self.lpips(sr_features, gt_features)
        if self.gram is not None:
            terms["gram"] = self.gram(sr_features, gt_features)
        return terms

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of raw terms; every active term must be there and no other."""
        if set(terms) != set(self.weights):
            raise ValueError(f"loss terms {sorted(terms)} do not match the weights {sorted(self.weights)}")
        return sum(self.weights[name] * term for name, term in terms.items())
