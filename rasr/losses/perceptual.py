"""LPIPS (Zhang et al. 2018, VGG, version 0.1): distance of deep features, weighted to agree with people."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from rasr.losses.vgg import LAYERS


class LPIPS(nn.Module):
    """The value of `lpips.LPIPS(net="vgg")`, mean over the batch, from features that are there already.

    The channel weights are those in the `lpips` package. Its module is not used: it would hold and run a
    second VGG-16 beside the Gram term's, and its gradient is NaN wherever all features of a pixel are 0.
    """

    def __init__(self) -> None:
        super().__init__()
        path = Path(find_spec("lpips").origin).parent / "weights" / "v0.1" / "vgg.pth"
        tensors = torch.load(path, map_location="cpu", weights_only=True)
        for i, layer in enumerate(LAYERS):
            self.register_buffer(layer, tensors[f"lin{i}.model.1.weight"], persistent=False)  # (1, C, 1, 1)

    def forward(self, sr_features: dict[str, Tensor], gt_features: dict[str, Tensor]) -> Tensor:
        """Scalar >= 0 from two results of `VGG16Features`; 0 if they are equal."""
        distances = []
        for layer in LAYERS:
            difference = _normalize(sr_features[layer]) - _normalize(gt_features[layer])
            distances.append((self.get_buffer(layer) * difference.square()).sum(dim=1).mean())
        return torch.stack(distances).sum()


def _normalize(features: Tensor) -> Tensor:
    """Unit length over the channels. The norm's gradient at 0 is 0, unlike that of the square root."""
    return features / (torch.linalg.vector_norm(features, dim=1, keepdim=True) + 1e-10)
