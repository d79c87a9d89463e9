"""Restoration chains behind one protocol, and the driver that lets a target chain learn from reference
chains.

A chain is one image on its way through a diffusion model. The reference chains never read the target chain,
so at each step they go first and leave a `ReferenceBank`, and the target follows: the same result as the
official code's joint batch, without its common size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from rasr.fusion.attention.bank import ReferenceBank
from rasr.fusion.attention.injector import ReferenceInjector


class NoiseSource:
    """The noise of one chain, drawn on the CPU: the same on every device.

    Args:
        seed: seed of this chain; chains that share their noise have the same.
        size: (h, w) in latents of the noise drawn, of which every chain takes its top left part: chains of
            different sizes then share what both have.
    """

    def __init__(self, seed: int, size: tuple[int, int]) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._size = size

    def draw(self, like: Tensor) -> Tensor:
        """Standard normal noise in shape, dtype and device of `like`, (1, C, h, w) latents."""
        noise = torch.randn((1, like.shape[1], *self._size), generator=self._generator)
        return noise[..., : like.shape[-2], : like.shape[-1]].to(like)


class ChainAdapter(Protocol):
    """A restoration model as ReFIR needs to see it. States are the adapter's own business."""

    unet: UNet2DConditionModel
    """Where references are injected."""
    n_steps: int
    """Diffusion steps of one restoration."""
    vae_factor: int
    """Side of the image block that one latent stands for."""
    size_multiple: int
    """Sides of every image must be multiples of this."""
    color_fix: str
    """Colour fix where none is asked for (`rasr.inference.color_fix`)."""

    def prepare(self, images: Tensor, prompt: str, noise: NoiseSource) -> Any:
        """(1, 3, H, W) in [0, 1] (a target: LR on the HR grid; or a reference) -> state before step 0."""

    def predict(self, state: Any, step: int) -> Tensor:
        """The UNet's prediction at `step`; the only place where the UNet runs."""

    def advance(self, state: Any, prediction: Tensor, step: int) -> Any:
        """The state after `step`."""

    def decode(self, state: Any) -> Tensor:
        """(1, 3, H, W) in [0, 1] after the last step."""

    def to(self, device: torch.device) -> Any:
        """Moves all parts."""


@dataclass
class Source:
    """A reference chain in progress."""

    state: Any
    weight: float = 1.0
    """a_n among several references."""


def run_target(
    chain: ChainAdapter,
    injector: ReferenceInjector,
    target: Any,
    *,
    sources: Sequence[Source] = (),
) -> Any:
    """Runs a target chain to its end.

    Args:
        chain: the model.
        injector: installed in `chain.unet`.
        target: state of the target before step 0.
        sources: reference chains to run along; they advance at every step, since their latents are needed
            later, but are recorded only where the injection is active.

    Returns:
        The target's last state.
    """
    n_steps = chain.n_steps
    if not any(injector.config.is_active(step, n_steps) for step in range(n_steps)):
        sources = ()
    banks: list[ReferenceBank | None] = []
    for step in range(n_steps):
        is_active = injector.config.is_active(step, n_steps)
        is_last = step == n_steps - 1
        if sources:
            banks = [_advance(chain, injector, source, step, is_active, is_last) for source in sources]
        if banks and is_active:
            with injector.inject(banks, step, n_steps):
                prediction = chain.predict(target, step)
        else:
            prediction = chain.predict(target, step)
        target = chain.advance(target, prediction, step)
    return target


def _advance(
    chain: ChainAdapter,
    injector: ReferenceInjector,
    source: Source,
    step: int,
    is_active: bool,
    is_last: bool,
) -> ReferenceBank | None:
    """One step of a reference chain; its bank if this step is injected into."""
    if not is_active:
        bank, prediction = None, chain.predict(source.state, step)
    else:
        with injector.record(step) as recorded:
            prediction = chain.predict(source.state, step)
        bank = recorded.with_weight(source.weight)
    if not is_last:
        source.state = chain.advance(source.state, prediction, step)
    return bank
