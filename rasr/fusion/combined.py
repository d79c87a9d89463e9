"""The trained residual branch and ReFIR's injection at once; choice: no paper combines the two."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from rasr.backbones.one_step import OneStepBackbone
from rasr.backbones.unet_passes import EncoderOutput
from rasr.fusion.attention.bank import ReferenceBank
from rasr.fusion.base import ANY_USE, Kept, ReferenceFusion, ReferenceUse
from rasr.fusion.injection import InjectionFusion
from rasr.fusion.reference_features import ReferenceFeatures
from rasr.fusion.residual import ResidualFusion


@dataclass(frozen=True)
class BranchAndBank:
    """One reference, prepared for both."""

    features: ReferenceFeatures
    bank: ReferenceBank


class CombinedFusion(ReferenceFusion):
    """The branch sees the first reference, the injection all; references pass the backbone alone.

    `strength` is the branch's; the injection has its `config.scale`.

    Args:
        residual: attached.
        injection: of any settings.
    """

    name = "residual and injection"
    default_strength = ResidualFusion.default_strength
    keeps_any_size = True
    can_be_kept = False  # the branch sees the reference cut to the photograph's tiles

    def __init__(self, residual: ResidualFusion, injection: InjectionFusion) -> None:
        super().__init__()
        self.residual, self.injection = residual, injection
        self.text_blocks = residual.text_blocks

    @property
    def is_attached(self) -> bool:
        """See `ReferenceFusion`."""
        return self.injection.is_attached

    def attach(self, backbone: OneStepBackbone) -> None:
        """See `ReferenceFusion`."""
        self.injection.attach(backbone)

    def keep(self, backbone: OneStepBackbone, ref: Tensor, use: ReferenceUse = ANY_USE) -> Kept:
        """What both keep; good for tiles of this shape only."""
        return self.injection.keep(backbone, ref, use) | self.residual.keep(backbone, ref, use)

    def prepare(self, backbone: OneStepBackbone, kept: Kept, weight: float = 1.0) -> BranchAndBank:
        """Features of the branch, and the bank with its share."""
        bank = self.injection.prepare(backbone, kept, weight)
        return BranchAndBank(self.residual.prepare(backbone, kept), bank)

    def watching(
        self, backbone: OneStepBackbone, prepared: Sequence[BranchAndBank], strength: float | Tensor
    ) -> AbstractContextManager[Any]:
        """See `InjectionFusion`."""
        return self.injection.watching(backbone, [each.bank for each in prepared], 1.0)

    def inject(
        self,
        backbone: OneStepBackbone,
        encoded: EncoderOutput,
        prepared: Sequence[BranchAndBank],
        strength: float | Tensor,
    ) -> EncoderOutput:
        """See `ResidualFusion`."""
        return self.residual.inject(backbone, encoded, [prepared[0].features], strength)
