"""What ReFIR sees of a photograph and its reference, as a picture.

As Figures 2 and 12 of the paper: principal components of the decoder's self-attention features; beside them
the spatial gate.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from sklearn.decomposition import PCA
from torch import Tensor, nn

from rasr.drawing.panel import PanelCell, draw_panel
from rasr.fusion.attention.injector import find_sites
from rasr.fusion.attention.processor import INJECT, OFF, RECORD, ReferenceAttnProcessor
from rasr.image_ops import resize_bicubic

logger = logging.getLogger(__name__)


@dataclass
class Seen:
    """What one decoder block's first self-attention made of an image."""

    features: Tensor
    """(L, C), its output."""
    size: tuple[int, int]
    """(h, w) with h w = L."""
    gate: Tensor | None = None
    """(h', w') in [0, 1]; None for references and without a gate."""


class Probe:
    """Context manager that keeps the last features of target and reference in every decoder block.

    Args:
        unet: the UNet that a `ReferenceInjector` is, or will be, installed in.
    """

    def __init__(self, unet: UNet2DConditionModel) -> None:
        self.unet = unet
        self.target: dict[str, Seen] = {}
        self.reference: dict[str, Seen] = {}
        self._sizes: dict[str, tuple[int, int]] = {}
        self._handles: list = []

    def __enter__(self) -> Probe:
        watched = set()
        for site in find_sites(self.unet):
            if site.block not in watched:
                watched.add(site.block)
                self._watch(site.block, site.attention)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    def _watch(self, block: str, attention: nn.Module) -> None:
        def before(module: nn.Module, args: tuple, kwargs: dict) -> None:
            self._sizes[block] = tuple(kwargs["hidden_states"].shape[-2:])

        def after(module: nn.Module, args: tuple, output: Tensor) -> None:
            processor = module.processor
            state = processor.state if isinstance(processor, ReferenceAttnProcessor) else None
            mode = OFF if state is None else state.mode
            seen = Seen(output[-1].float().cpu(), self._sizes[block])  # the conditional row, under guidance
            if mode == RECORD:
                self.reference[block] = seen
                return
            if mode == INJECT and processor.gate_name is not None:
                seen.gate = state.gates[processor.gate_name][0][-1, 0].cpu()
            self.target[block] = seen

        self._handles.append(
            self.unet.get_submodule(block).register_forward_pre_hook(before, with_kwargs=True)
        )
        self._handles.append(attention.register_forward_hook(after))


def draw_seen(probe: Probe, lq: Tensor, ref: Tensor, sr: Tensor, path: Path) -> None:
    """One row of images, one row per decoder block, deepest first."""
    large = resize_bicubic(lq[None], tuple(sr.shape[-2:]))[0]
    rows = [[PanelCell("photograph", lq), PanelCell("reference", ref), PanelCell("restored", sr)]]
    for block, target in probe.target.items():
        source = probe.reference.get(block)
        seen = [target] if source is None else [target, source]
        maps = principal_components([part.features for part in seen])
        images = [colours.T.reshape(3, *part.size) for colours, part in zip(maps, seen, strict=True)]
        row = [PanelCell(f"{block}: features", images[0])]
        if source is not None:
            row.append(PanelCell("of the reference", images[1]))
        if target.gate is not None:
            row.append(PanelCell("gate", overlay(large, target.gate)))
        rows.append(row)
    draw_panel(rows, path)


def principal_components(features: Sequence[Tensor]) -> list[Tensor]:
    """(L, C) features of several images -> (L, 3) in [0, 1], one basis and one range for all."""
    joined = torch.cat(list(features))
    projected = torch.from_numpy(PCA(n_components=3, svd_solver="full").fit_transform(joined.numpy()))
    low, high = projected.amin(0), projected.amax(0)
    colours = (projected - low) / (high - low).clamp(min=1e-8)
    return list(colours.float().split([len(part) for part in features]))


def overlay(image: Tensor, gate: Tensor) -> Tensor:
    """(3, H, W) image, gray, under the (h, w) gate: blue where it is 0, red where it is 1."""
    large = F.interpolate(gate[None, None], image.shape[-2:], mode="bilinear")[0]
    gray = image.mean(0, keepdim=True).expand(3, -1, -1)
    tint = torch.cat([large, torch.zeros_like(large), 1 - large])
    return 0.5 * gray + 0.5 * tint
