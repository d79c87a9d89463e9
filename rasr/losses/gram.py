"""The Gram loss (rasr paper, Eq. 4): textures agree if the features of VGG-16 correlate alike."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rasr.errors import RasrError
from rasr.losses.vgg import LAYERS

# Choice: paper silent about the layers and their weights lambda_l.
DEFAULT_LAYERS = {"relu1_2": 1.0, "relu2_2": 1.0, "relu3_3": 1.0, "relu4_3": 1.0}


class GramLoss(nn.Module):
    """L_Gram = sum_l lambda_l / (C_l H_l W_l) ||G_l(sr) - G_l(gt)||_2^2, mean over the batch.

    Choice: G_l = F F^T, summed over the H_l W_l positions and not divided by anything, as Eq. 4 is written.
    For a given relative difference of the textures the term then grows with the image's area; `layers` is
    where to counter that. Always at least float32, also under autocast.

    Args:
        layers: lambda_l by layer name; layers of weight 0 are dropped.
    """

    def __init__(self, layers: Mapping[str, float] = DEFAULT_LAYERS) -> None:
        super().__init__()
        unknown = sorted(set(layers) - set(LAYERS))
        if unknown:
            raise RasrError(f"loss.gram_layers names unknown layers {unknown}; known are {', '.join(LAYERS)}")
        self.layers = {name: float(weight) for name, weight in layers.items() if weight != 0}
        if not self.layers:
            raise RasrError("every weight of loss.gram_layers is 0; use loss.weights.gram=0 to leave it out")

    def forward(self, sr_features: dict[str, Tensor], gt_features: dict[str, Tensor]) -> Tensor:
        """Scalar >= 0 from two results of `VGG16Features`; 0 if they are equal."""
        terms = []
        for layer, weight in self.layers.items():
            difference = gram_matrix(sr_features[layer]) - gram_matrix(gt_features[layer])
            numel = sr_features[layer][0].numel()
            terms.append(weight / numel * difference.square().sum(dim=(1, 2)).mean())
        return torch.stack(terms).sum()


def gram_matrix(features: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, C, C): products of channels, summed over the positions."""
    with torch.autocast(features.device.type, enabled=False):
        flat = features.to(torch.promote_types(features.dtype, torch.float32)).flatten(2)
        return flat @ flat.transpose(1, 2)
