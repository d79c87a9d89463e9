"""ReFIR over some weights: `infer.py method=refir` and `method=refir_multistep`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rasr.config.injection import InjectionConfig
from rasr.errors import RasrError
from rasr.fusion.combined import CombinedFusion
from rasr.fusion.injection import InjectionFusion
from rasr.fusion.residual import ResidualFusion
from rasr.models.finding import is_multi_step
from rasr.models.rasr_net import RASRNet
from rasr.models.weights import load_rasr_net
from rasr.refir.chain_net import ChainNet
from rasr.refir.multi_step import MultiStepChain
from rasr.refir.one_step import OneStepChain


def open_refir(
    weights: str,
    *,
    injection: InjectionConfig,
    backbone: str | None = None,
    osediff_weights: str | None = None,
    fusion: str | None = None,
    references: int = 1,
    ref_size: int | None = 512,
    use_branch: bool = False,
) -> RASRNet | ChainNet:
    """The backbone of some weights with references injected without training.

    Args:
        weights: see `load_rasr_net`, as `backbone` and `osediff_weights`.
        injection: how references are injected.
        backbone: replaces the one that the weights name.
        osediff_weights: merged into the backbone.
        fusion: with `use_branch`, which of a folder's fusions; only the residual can be combined.
        references: how many there will be.
        ref_size: longer references are shrunk to this long side; None never shrinks.
        use_branch: run the trained branch of the weights too, with the first reference.
    """
    if is_multi_step(weights):
        raise RasrError(f"weights={weights} is a multi-step restorer; add method=refir_multistep")
    is_shared = injection.canvas == "shared"
    if use_branch and is_shared:
        raise RasrError("method.use_branch=true needs refir.canvas=own; leave one of them out")
    if use_branch and fusion is None and Path(weights, ResidualFusion.file_name).is_file():
        fusion = ResidualFusion.name
    net = load_rasr_net(weights, backbone=backbone, osediff_weights=osediff_weights, fusion=fusion)
    if use_branch and not isinstance(net.fusion, ResidualFusion):
        raise RasrError(f"method.use_branch=true but weights={weights} has no trained branch; leave it out")
    if is_shared:
        opened = ChainNet(OneStepChain(net), injection, ref_size=ref_size)
    else:
        injected = InjectionFusion(injection, ref_size)
        opened = with_fusion(net, CombinedFusion(net.fusion, injected) if use_branch else injected)
    opened.check_references(references)
    return opened


def with_fusion(net: RASRNet, fusion: InjectionFusion | CombinedFusion) -> RASRNet:
    """A net over the same backbone, whose references enter in another way."""
    return RASRNet(net.backbone, fusion, color_fix=net.color_fix)


def open_multi_step(
    weights: str,
    *,
    injection: InjectionConfig,
    chain: dict[str, Any],
    backbone: str | None = None,
    osediff_weights: str | None = None,
    fusion: str | None = None,
    references: int = 1,
    ref_size: int | None = 512,
    seed: int = 0,
) -> ChainNet:
    """A multi-step ControlNet restorer with injected references.

    Args:
        weights: its directory.
        injection: how references are injected.
        chain: settings of `MultiStepChain`.
        backbone: of one-step weights alone; refused, as `osediff_weights` and `fusion`.
        osediff_weights: see `backbone`.
        fusion: see `backbone`.
        references: how many there will be.
        ref_size: longer references are shrunk to this long side; None never shrinks.
        seed: of the noise, anew for every tile.
    """
    given = {"backbone": backbone, "osediff_weights": osediff_weights, "fusion": fusion}
    if names := [f"{name}=" for name, value in given.items() if value is not None]:
        raise RasrError(f"{' and '.join(names)} belong to one-step weights; leave them out")
    net = ChainNet(MultiStepChain.from_pretrained(weights, **chain), injection, ref_size=ref_size, seed=seed)
    net.check_references(references)
    return net
