"""ReFIR's cross-image injection as a fusion: references enter the decoder's self-attentions, untrained.

Guo et al., NeurIPS 2024, section 4.2, on a one-step backbone. A reference passes the frozen backbone as a
photograph would, with its own prompt; what its self-attentions saw is all that the photograph's pass needs
of it, and can be kept.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from rasr.backbones.one_step import OneStepBackbone
from rasr.checks import check_whole
from rasr.config.injection import InjectionConfig
from rasr.errors import RasrError
from rasr.fusion.attention.bank import ReferenceBank
from rasr.fusion.attention.injector import ReferenceInjector
from rasr.fusion.base import ANY_USE, Kept, ReferenceFusion, ReferenceUse
from rasr.image_ops import cover_and_crop

_SAMPLES = 64  # values of each tensor that tell one set of weights from another


class InjectionFusion(ReferenceFusion):
    """References injected without training; `strength` is a factor on `config.scale`.

    Args:
        config: how; `canvas="own"` (the photograph's size decides nothing of a reference).
        ref_size: longer references are shrunk to this long side, pixels; None never shrinks.
    """

    name = "injection"
    keeps_any_size = True

    def __init__(self, config: InjectionConfig | None = None, ref_size: int | None = 512) -> None:
        super().__init__()
        self.config = config or InjectionConfig.preset("onestep")
        if self.config.canvas != "own":
            raise RasrError("refir.canvas=shared is no fusion: target and reference share one picture there")
        if ref_size is not None:
            check_whole("method.ref_size", ref_size, least=1)
        self.ref_size = ref_size
        self._fingerprint: str | None = None

    def attach(self, backbone: OneStepBackbone) -> None:
        """Raises a RasrError unless `ref_size` fits the backbone."""
        multiple = backbone.size_multiple
        if self.ref_size is not None and self.ref_size < multiple:
            raise RasrError(f"method.ref_size={self.ref_size} is below {multiple}, the least the model takes")
        self._fingerprint = ""

    @property
    def is_attached(self) -> bool:
        """See `ReferenceFusion`."""
        return self._fingerprint is not None

    @torch.no_grad()
    def keep(self, backbone: OneStepBackbone, ref: Tensor, use: ReferenceUse = ANY_USE) -> Kept:
        """The bank (`ReferenceBank`) of references (B, 3, H, W), any size and aspect, as flat tensors."""
        ref = fit_reference(ref, backbone.size_multiple, self.ref_size)
        prompt_embeds = backbone.encode_prompt([use.prompt] * len(ref))
        with ReferenceInjector(backbone.unet, self.config) as injector, injector.record() as bank:
            encoded = backbone.encode_unet(backbone.encode(ref), prompt_embeds)
            backbone.decode_unet(encoded, prompt_embeds)
        return bank.state_dict()

    def to_disk(self, kept: Kept) -> Kept:
        """Attention inputs in float16, directions as they are."""
        return ReferenceBank.from_state_dict(kept).to("cpu", torch.float16).state_dict()

    def kept_variant(self, backbone: OneStepBackbone, prompt: str) -> str:
        """A hash of the weights, the settings and the reference's text, all of which decide what is kept."""
        text = json.dumps(self.kept_settings(backbone) | {"prompt": prompt}, sort_keys=True)
        return "-" + hashlib.sha256(text.encode()).hexdigest()[:16]

    def fingerprint(self, backbone: OneStepBackbone) -> str:
        """See `ReferenceFusion`; strength and schedule act on the photograph alone and are no part of it."""
        text = json.dumps(self.kept_settings(backbone), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def kept_settings(self, backbone: OneStepBackbone) -> dict[str, Any]:
        """All that a bank depends on besides image and prompt."""
        if not self._fingerprint:
            self._fingerprint = weights_fingerprint(backbone)
        return {
            "weights": self._fingerprint,
            "timestep": backbone.timestep,
            "position": self.config.position,
            "gate_site": self.config.gate_site,
            "ref_size": self.ref_size,
        }

    def prepare(self, backbone: OneStepBackbone, kept: Kept, weight: float = 1.0) -> ReferenceBank:
        """The bank with its share."""
        return ReferenceBank.from_state_dict(kept).with_weight(weight)

    @contextmanager
    def watching(
        self, backbone: OneStepBackbone, prepared: Sequence[ReferenceBank], strength: float | Tensor
    ) -> Iterator[None]:
        """Injects into the UNet's self-attentions."""
        config = replace(self.config, scale=min(1.0, self.config.scale * float(strength)))
        with ReferenceInjector(backbone.unet, config) as injector, injector.inject(prepared):
            yield


def fit_reference(ref: Tensor, multiple: int, max_side: int | None = None) -> Tensor:
    """Brings a reference to sides that the network takes, its aspect kept.

    Target and reference need no common size: their keys, values and gate directions have none.

    Args:
        ref: (B, 3, H, W) in [0, 1], any size.
        multiple: sides of the result are multiples of this; what is over is cut off evenly.
        max_side: a longer reference is shrunk to it; None never shrinks. It is never enlarged beyond one
            `multiple`: texture counts at its own scale.
    """
    height, width = ref.shape[-2:]
    factor = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    size = tuple(max(multiple, int(side * factor) // multiple * multiple) for side in (height, width))
    return cover_and_crop(ref, size)


def weights_fingerprint(net: nn.Module) -> str:
    """Short hash that tells sets of weights apart: names, shapes and some values of every tensor.

    Values are compared in bf16, so that a net loaded in half precision knows the banks made in full.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(net.state_dict().items()):
        values = tensor.detach().flatten()
        values = values[:: max(1, values.numel() // _SAMPLES)][:_SAMPLES].bfloat16().cpu()
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(values.contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
