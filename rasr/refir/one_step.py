"""Chain (a): this project's one-step backbone, alone or with its trained reference branch.

One step at the schedule's end, no noise, no guidance. A reference passes the frozen backbone as a target
would, with its own prompt, and its bank is a function of the reference alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rasr.errors import RasrError
from rasr.image_ops import cover_and_crop
from rasr.models import RASRNet, ReferenceFeatures, ResidualFusion
from rasr.refir.chains import NoiseSource


@dataclass(frozen=True)
class OneStepState:
    """An image in latents, (1, C, h, w), with its text and, for a target, the branch's features."""

    latents: Tensor
    prompt_embeds: Tensor
    features: ReferenceFeatures | None = None


class OneStepChain:
    """`ChainAdapter` over a RASRNet.

    Args:
        net: the network, with or without a branch.
        conditioning_scale: strength of the trained branch (Eq. 6 of RASR) for targets that are prepared with
            a branch reference; choice: no paper combines the two, references pass the backbone alone.
    """

    n_steps = 1

    def __init__(self, net: RASRNet, *, conditioning_scale: float = 0.5) -> None:
        self.net = net.eval()
        self.backbone = net.backbone
        self.unet = net.backbone.unet
        self.color_fix = net.color_fix
        self.conditioning_scale = conditioning_scale

    @property
    def vae_factor(self) -> int:
        """See `OneStepBackbone`."""
        return self.backbone.vae_factor

    @property
    def size_multiple(self) -> int:
        """See `OneStepBackbone`."""
        return self.backbone.size_multiple

    def branch_features(self, ref: Tensor, size: tuple[int, int]) -> ReferenceFeatures:
        """What the trained branch sees of a reference (1, 3, H, W), cut to the target's size."""
        if not isinstance(self.net.fusion, ResidualFusion):
            raise RasrError(
                "method.use_branch=true but the weights have no trained branch; leave it out, or give the "
                "weights of train.py"
            )
        return self.net.fusion.features(cover_and_crop(ref, size))

    def prepare(
        self,
        images: Tensor,
        prompt: str,
        noise: NoiseSource | None = None,
        features: ReferenceFeatures | None = None,
    ) -> OneStepState:
        """See `ChainAdapter`; no noise is drawn. `features` of `branch_features` combine both systems."""
        self.backbone.check_size(images)
        return OneStepState(self.backbone.encode(images), self.backbone.encode_prompt([prompt]), features)

    def predict(self, state: OneStepState, step: int) -> Tensor:
        """(1, C, h, w) noise prediction."""
        encoded = self.backbone.encode_unet(state.latents, state.prompt_embeds)
        text_blocks = None
        if state.features is not None:
            fusion = self.net.fusion
            encoded = fusion.inject(self.backbone, encoded, [state.features], self.conditioning_scale)
            text_blocks = fusion.text_blocks
        return self.backbone.decode_unet(encoded, state.prompt_embeds, text_blocks)

    def advance(self, state: OneStepState, prediction: Tensor, step: int) -> OneStepState:
        """The restored latents."""
        return OneStepState(self.backbone.predict_x0(state.latents, prediction), state.prompt_embeds)

    def decode(self, state: OneStepState) -> Tensor:
        """See `ChainAdapter`."""
        return self.backbone.decode(state.latents)

    def to(self, device: torch.device) -> OneStepChain:
        """See `ChainAdapter`."""
        self.net.to(device)
        return self
