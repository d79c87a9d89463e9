"""Installs the injection in a UNet for as long as it is wanted, and finds the places where it belongs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType

from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention
from torch import nn

from rasr.config.injection import InjectionConfig
from rasr.errors import RasrError
from rasr.fusion.attention.bank import ReferenceBank
from rasr.fusion.attention.processor import (
    INJECT,
    JOINT,
    RECORD,
    InjectionState,
    ReferenceAttnProcessor,
)

FAMILIES = ("attentions", "image_attentions")
"""Lists of transformers in a UNet block, in the order in which they run; the second is SeeSR's."""


@dataclass(frozen=True)
class Site:
    """One self-attention of the UNet that may be injected into."""

    name: str
    """Its place in the UNet, as in `named_modules`."""
    attention: Attention
    block: str
    """Name of the UNet block it lies in."""
    resnet: str
    """Name of the residual block that runs before its transformer."""


class ReferenceInjector:
    """Context manager around UNet calls (ReFIR, section 4.2).

    Inside, a UNet call records a reference, restores a target with recorded references, or does both in one
    batch; outside, the UNet is as it was before, also after an exception::

        with ReferenceInjector(unet, config) as injector:
            with injector.record(step) as bank:
                unet(reference_latents, ...)
            with injector.inject([bank], step, n_steps):
                unet(latents, ...)

    Target and references may have different sizes. Inference only: injected outputs carry no gradient.

    Args:
        unet: any diffusers UNet with Transformer2DModel blocks (SD-1.x, SD-2.x, SDXL).
        config: see `InjectionConfig`.
    """

    def __init__(self, unet: UNet2DConditionModel, config: InjectionConfig) -> None:
        self.unet = unet
        self.config = config
        self.state = InjectionState(config)
        self.sites = find_sites(unet, config.position)
        self._handles: list = []

    def __enter__(self) -> ReferenceInjector:
        if any(isinstance(site.attention.processor, ReferenceAttnProcessor) for site in self.sites):
            raise RuntimeError("this UNet has an injector already; leave that one first")
        self.state.reset()
        group_sizes: dict[bool, int] = {}
        for site in self.sites:
            in_decoder = is_decoder(site)
            index = group_sizes.get(in_decoder, 0)
            group_sizes[in_decoder] = index + 1
            n_sites = sum(is_decoder(other) == in_decoder for other in self.sites)
            strength = self.config.scale * self.config.layer_weight(index, n_sites)
            processor = ReferenceAttnProcessor(
                self.state, site.name, self._gate_name(site), strength, site.attention.processor
            )
            site.attention.set_processor(processor)
        for name in self.gate_names:
            self._watch(name, self.unet.get_submodule(name))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for site in self.sites:
            site.attention.set_processor(site.attention.processor.inner)
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self.state.reset()

    @contextmanager
    def record(self, step: int = 0) -> Iterator[ReferenceBank]:
        """The UNet calls inside fill the bank that this gives; their own outputs are untouched."""
        bank = ReferenceBank(step=step)
        self.state.mode, self.state.recorder = RECORD, bank
        try:
            yield bank
        finally:
            self.off()

    @contextmanager
    def inject(self, banks: Sequence[ReferenceBank], step: int = 0, n_steps: int = 1) -> Iterator[None]:
        """The UNet calls inside are targets; at steps outside `config.active` they run as without injection.

        Args:
            banks: one per reference, of this step, with one row or as many as the target; their weights sum
                to 1.
            step: diffusion step, from 0.
            n_steps: how many there are.
        """
        if not banks or abs(sum(bank.weight for bank in banks) - 1) > 1e-4:
            raise ValueError(f"weights {[bank.weight for bank in banks]} of the banks do not sum to 1")
        wanted = {site.name for site in self.sites} | set(self.gate_names)
        for bank in banks:
            if missing := sorted(wanted - bank.hidden.keys() - bank.direction.keys()):
                raise ValueError(
                    f"a bank lacks {missing[0]}: it was recorded with another gate_site or position"
                )
        if self.config.is_active(step, n_steps):
            self.state.mode, self.state.banks = INJECT, tuple(banks)
        try:
            yield
        finally:
            self.off()

    def joint(self, *, target_rows: Sequence[int], source_rows: Sequence[int]) -> None:
        """From now on the batch holds targets and their references, as in the official code; until `off()`.

        Args:
            target_rows: rows that are injected into.
            source_rows: their references, one each; these rows run as without injection.
        """
        if len(target_rows) != len(source_rows):
            raise ValueError(f"{len(target_rows)} target rows but {len(source_rows)} source rows")
        self.off()
        if self.config.scale > 0:
            self.state.mode = JOINT
            self.state.target_rows, self.state.source_rows = tuple(target_rows), tuple(source_rows)

    def off(self) -> None:
        """UNet calls run as without injection again."""
        self.state.reset()

    @property
    def gate_names(self) -> list[str]:
        """Modules whose inputs the gates compare, in execution order; empty without gates."""
        names = (self._gate_name(site) for site in self.sites)
        return list(dict.fromkeys(name for name in names if name is not None))

    def _gate_name(self, site: Site) -> str | None:
        return {"block_input": site.block, "resnet_input": site.resnet, "none": None}[self.config.gate_site]

    def _watch(self, name: str, module: nn.Module) -> None:
        def hook(_: nn.Module, args: tuple, kwargs: dict) -> None:
            # UNets pass a block's input by keyword, blocks pass a residual block's input by position.
            self.state.see(name, kwargs["hidden_states"] if "hidden_states" in kwargs else args[0])

        self._handles.append(module.register_forward_pre_hook(hook, with_kwargs=True))


def find_sites(unet: UNet2DConditionModel, position: str = "decoder") -> list[Site]:
    """Self-attentions of the UNet's transformers, in the order in which they run.

    Execution order counts for the cosine schedule: a block alternates between its families (resnet j,
    attentions[j], image_attentions[j]), which the order of parameter names does not show.

    Args:
        unet: the UNet.
        position: "decoder", "encoder" (down blocks and mid block: choice, the paper does not name the mid
            block) or "both".
    """
    encoder = [(f"down_blocks.{i}", block) for i, block in enumerate(unet.down_blocks)]
    encoder += [("mid_block", unet.mid_block)] if unet.mid_block is not None else []
    decoder = [(f"up_blocks.{i}", block) for i, block in enumerate(unet.up_blocks)]
    blocks = {"encoder": encoder, "decoder": decoder, "both": encoder + decoder}[position]
    sites = [site for name, block in blocks for site in _sites_of_block(name, block)]
    if not sites:
        raise RasrError(
            f"this UNet has no transformer self-attention in its {position}; use SD or SDXL weights"
        )
    return sites


def _sites_of_block(name: str, block: nn.Module) -> Iterator[Site]:
    for j in range(len(getattr(block, "attentions", None) or ())):
        for family in FAMILIES:
            transformers = getattr(block, family, None)
            if transformers is None or not hasattr(transformers[j], "transformer_blocks"):
                continue
            for k, layer in enumerate(transformers[j].transformer_blocks):
                if layer.only_cross_attention:
                    continue
                place = f"{name}.{family}.{j}.transformer_blocks.{k}.attn1"
                yield Site(place, layer.attn1, name, f"{name}.resnets.{j}")


def is_decoder(site: Site) -> bool:
    """Whether the site lies in an up block; decoder and encoder each have a layer schedule of their own."""
    return site.block.startswith("up_blocks")
