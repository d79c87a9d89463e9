"""The restoration loss (rasr paper, Eq. 4): raw terms in a dict, weights applied in one place.

    L = w_mse * L_MSE

A term whose weight is 0 is not built and not computed.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from rasr.errors import RasrError

TERMS = ("mse",)


class RestorationLoss(nn.Module):
    """Compares a restored batch with its ground truth.

    `sr` and `gt` are (B, 3, H, W) in [0, 1]; each term normalises for itself.

    Args:
        weights: weight per term name; terms of weight 0 are dropped.
    """

    def __init__(self, weights: Mapping[str, float]) -> None:
        super().__init__()
        unknown = sorted(set(weights) - set(TERMS))
        if unknown:
            raise RasrError(f"loss.weights names unknown terms {unknown}; known are {', '.join(TERMS)}")
        self.weights = {name: float(weight) for name, weight in weights.items() if weight != 0}
        if not self.weights:
            raise RasrError("every loss weight is 0; give at least one of loss.weights a positive value")

    def forward(self, sr: Tensor, gt: Tensor) -> dict[str, Tensor]:
        """Raw (unweighted) terms by name, scalars in float32."""
        terms = {}
        if "mse" in self.weights:
            terms["mse"] = F.mse_loss(sr.float(), gt.float())
        return terms

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """Weighted sum of raw terms; every active term must be there and no other."""
        if set(terms) != set(self.weights):
            raise ValueError(f"loss terms {sorted(terms)} do not match the weights {sorted(self.weights)}")
        return sum(self.weights[name] * term for name, term in terms.items())
