"""The mathematics of the injection: spatial gate, fusion (Eq. 2 and 4) and distribution alignment (Eq. 3).

Pure functions on tensors; no module of a network is known here. Statistics are taken in float32 whatever the
dtype of the features: min-max normalisation magnifies rounding.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

GATE_EPSILON = 1e-8
ADAIN_EPSILON = 1e-5


def mean_direction(features: Tensor) -> Tensor:
    """(B, C, h, w) features -> (B, C) mean of the pixels' unit vectors, float32.

    All that the gate needs of a reference, whatever its size.
    """
    return _unit_vectors(features).mean(dim=(-2, -1))


def spatial_gate(features: Tensor, direction: Tensor) -> Tensor:
    """Where the reference is of use to the target (ReFIR, section 4.2).

    The paper sums each pixel's cosine similarities to all pixels of the reference and brings the sums to
    [0, 1]. By bilinearity the mean of the cosines is the product with the mean of the unit vectors,
    `mean_j <x_i, y_j> = <x_i, mean_j y_j>`: exact, and O(L C) where the similarity matrix is O(L^2 C) with
    L^2 memory. Unit vectors have to be formed before they are averaged.

    Args:
        features: (B, C, h, w) of the target.
        direction: (B, C) or (1, C), `mean_direction` of the reference's features at the same place.

    Returns:
        (B, 1, h, w) float32: every row has a 0 and a 1 (up to the epsilon), however poor the reference.
    """
    similarity = torch.einsum(
        "bchw,bc->bhw", _unit_vectors(features), direction.float().expand(features.shape[:2])
    )
    low, high = (bound(similarity, dim=(-2, -1), keepdim=True) for bound in (torch.amin, torch.amax))
    return ((similarity - low) / (high - low + GATE_EPSILON))[:, None]


def gate_tokens(gate: Tensor, n_tokens: int) -> Tensor:
    """(B, 1, h, w) gate -> (B, 1, n_tokens, 1), to be multiplied with attention outputs.

    A site whose feature map has another size than the gate's (none in SD and SDXL UNets) gets it bilinearly.
    """
    height, width = gate.shape[-2:]
    if height * width != n_tokens:
        factor = (n_tokens / (height * width)) ** 0.5
        gate = F.interpolate(gate, (round(height * factor), round(width * factor)), mode="bilinear")
    return gate.flatten(2)[..., None]


def fuse(o_intra: Tensor, others: Iterable[tuple[Tensor, Tensor | float]]) -> Tensor:
    """Eq. (2), and Eq. (4) in the reading of the text: `(1 - sum_n m_n) O_intra + sum_n m_n O_inter^n`.

    Eq. (4) as printed swaps the two outputs, which would make s = 0 the pure reference.

    Args:
        o_intra: (B, H, L, d) attention of the target to itself.
        others: (O_inter of a reference, its weights m_n = s a_n M_n) pairs; O_inter is overwritten.
    """
    fused = o_intra.clone()
    for o_inter, weight in others:
        o_inter -= o_intra
        o_inter *= weight.to(o_inter.dtype) if isinstance(weight, Tensor) else weight
        fused += o_inter
    return fused


def adain(content: Tensor, style: Tensor) -> Tensor:
    """Gives `content` the mean and deviation of `style` per row, head and channel, over the tokens (Eq. 3).

    Args:
        content: (B, H, L, d).
        style: (B, H, L', d).

    Returns:
        As `content`. Biased and unbiased variance give the same: their factor cancels.
    """
    content_var, content_mean = torch.var_mean(content.float(), dim=2, correction=0, keepdim=True)
    style_var, style_mean = torch.var_mean(style.float(), dim=2, correction=0, keepdim=True)
    gain = ((style_var + ADAIN_EPSILON) / (content_var + ADAIN_EPSILON)).sqrt()
    return ((content - content_mean) * gain + style_mean).to(content.dtype)


def _unit_vectors(features: Tensor) -> Tensor:
    features = features.float()
    return features / (features.norm(dim=1, keepdim=True) + GATE_EPSILON)
