"""Chain (a): this project's one-step backbone, as a chain of one step.

One step at the schedule's end, no noise, no guidance. With sizes of their own, references enter it as
`rasr.fusion.injection`; this chain serves the shared canvas of the official code.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rasr.models.rasr_net import RASRNet
from rasr.refir.chains import NoiseSource


@dataclass(frozen=True)
class OneStepState:
    """An image in latents, (1, C, h, w), with its text."""

    latents: Tensor
    prompt_embeds: Tensor


class OneStepChain:
    """`ChainAdapter` over a RASRNet's backbone."""

    n_steps = 1

    def __init__(self, net: RASRNet) -> None:
        self.net = net.eval()
        self.backbone = net.backbone
        self.unet = net.backbone.unet
        self.color_fix = net.color_fix
        self.vae_factor, self.size_multiple = self.backbone.vae_factor, self.backbone.size_multiple

    def prepare(self, images: Tensor, prompt: str, noise: NoiseSource | None = None) -> OneStepState:
        """See `ChainAdapter`; no noise is drawn."""
        self.backbone.check_size(images)
        return OneStepState(self.backbone.encode(images), self.backbone.encode_prompt([prompt]))

    def predict(self, state: OneStepState, step: int) -> Tensor:
        """(1, C, h, w) noise prediction."""
        encoded = self.backbone.encode_unet(state.latents, state.prompt_embeds)
        return self.backbone.decode_unet(encoded, state.prompt_embeds)

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
