"""The self-attention that also looks at a reference, and the state that tells it when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor

from rasr.config.injection import InjectionConfig
from rasr.errors import RasrError
from rasr.fusion.attention.bank import ReferenceBank
from rasr.fusion.attention.operations import adain, fuse, gate_tokens, mean_direction, spatial_gate

OFF, RECORD, INJECT, JOINT = "off", "record", "inject", "joint"


@dataclass
class InjectionState:
    """What the UNet call in progress is for; one object per injector, known to all its processors."""

    config: InjectionConfig
    mode: str = OFF
    """"off", "record" (the rows are a reference), "inject" (the rows are targets) or "joint" (both)."""
    recorder: ReferenceBank | None = None
    """Bank being filled in "record"."""
    banks: Sequence[ReferenceBank] = ()
    """References in "inject"."""
    target_rows: Sequence[int] = ()
    """Rows of the batch that are injected into in "joint"."""
    source_rows: Sequence[int] = ()
    """Rows of the batch that are their references, one each, in "joint"."""
    gates: dict[str, list[Tensor]] = field(default_factory=dict)
    """Gate name -> one (B, 1, h, w) gate per reference, of the call in progress."""

    def reset(self) -> None:
        """Back to "off", holding nothing."""
        self.mode, self.recorder, self.banks = OFF, None, ()
        self.target_rows, self.source_rows, self.gates = (), (), {}

    def see(self, gate_name: str, features: Tensor) -> None:
        """Takes the (B, C, h, w) features that a gate compares, as the UNet reaches them."""
        if self.mode == RECORD:
            self.recorder.direction[gate_name] = mean_direction(features)
        elif self.mode == INJECT:
            directions = [bank.direction[gate_name].to(features.device) for bank in self.banks]
            self.gates[gate_name] = [spatial_gate(features, direction) for direction in directions]
        elif self.mode == JOINT:
            direction = mean_direction(features[list(self.source_rows)])
            self.gates[gate_name] = [spatial_gate(features[list(self.target_rows)], direction)]

    def gate(self, gate_name: str | None, reference: int, n_tokens: int) -> Tensor | float:
        """(B, 1, n_tokens, 1) gate of one reference; 1 without gates."""
        return 1.0 if gate_name is None else gate_tokens(self.gates[gate_name][reference], n_tokens)


class ReferenceAttnProcessor:
    """Attention processor of one self-attention (ReFIR, Eq. 1 to 4).

    Whatever is not injection is left to the processor that was found at installation.

    Args:
        state: the injector's state.
        name: name of the site in banks.
        gate_name: name of the gate that the site belongs to; None has no gate.
        strength: s w(l), the config's scale times the layer weight.
        inner: the processor found at installation.
    """

    def __init__(
        self, state: InjectionState, name: str, gate_name: str | None, strength: float, inner: object
    ) -> None:
        self.state = state
        self.name = name
        self.gate_name = gate_name
        self.strength = strength
        self.inner = inner

    def __call__(
        self,
        attn: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """As every diffusers attention processor; `hidden_states` is (B, L, C)."""
        state = self.state
        if state.mode == RECORD:
            state.recorder.hidden[self.name] = hidden_states
        if state.mode in (OFF, RECORD) or self.strength == 0:
            return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        if encoder_hidden_states is not None or attention_mask is not None:
            raise RasrError(
                f"{self.name} is a masked or cross-attention; references need plain self-attentions"
            )

        query, key, value = (_project(attn, layer, hidden_states) for layer in ("to_q", "to_k", "to_v"))
        output = F.scaled_dot_product_attention(query, key, value)
        if state.mode == INJECT:
            output = self._inject(output, query, key, value, self._banks(attn, query))
        else:
            target, source = list(state.target_rows), list(state.source_rows)
            one = iter([(key[source], value[source], 1.0)])
            rows = (tensor[target] for tensor in (output, query, key, value))
            output[target] = self._inject(*rows, one)

        output = output.transpose(1, 2).flatten(2).to(query.dtype)
        return attn.to_out[1](attn.to_out[0](output))

    def _banks(self, attn: Attention, query: Tensor) -> Iterator[tuple[Tensor, Tensor, float]]:
        """Keys, values and share of each reference, made when they are wanted: one at a time in memory."""
        for bank in self.state.banks:
            hidden = bank.hidden[self.name].to(query.device, query.dtype)
            key, value = (_project(attn, layer, hidden) for layer in ("to_k", "to_v"))
            rows = (query.shape[0], -1, -1, -1)  # a kept bank has one row, the target may have more
            yield key.expand(rows), value.expand(rows), bank.weight

    def _inject(
        self,
        o_intra: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        references: Iterator[tuple[Tensor, Tensor, float]],
    ) -> Tensor:
        """All tensors (B, H, L, d), the references' (B, H, L_S, d)."""
        mode = self.state.config.mode
        if mode == "separate":
            fused = fuse(o_intra, self._weighted(query, references))
        elif mode == "replace":
            fused = sum(share * _attend(query, k, v) for k, v, share in references)
        else:
            keys, values, _ = zip(*references, strict=True)
            fused = _attend(query, torch.cat([key, *keys], dim=2), torch.cat([value, *values], dim=2))
        return adain(fused, o_intra) if self.state.config.align == "adain" else fused

    def _weighted(
        self, query: Tensor, references: Iterator[tuple[Tensor, Tensor, float]]
    ) -> Iterator[tuple[Tensor, Tensor | float]]:
        for i, (key, value, share) in enumerate(references):
            weight = self.strength * share * self.state.gate(self.gate_name, i, query.shape[2])
            yield _attend(query, key, value), weight


def _project(attn: Attention, layer: str, hidden_states: Tensor) -> Tensor:
    """(B, L, C) -> (B, H, L, d) by one of the attention's own layers (with any LoRA around them)."""
    return getattr(attn, layer)(hidden_states).unflatten(-1, (attn.heads, -1)).transpose(1, 2)


def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query, key, value)
