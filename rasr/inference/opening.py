"""From what a user gives to a `Restorer`: the net of some weights, and the references kept for it."""

from __future__ import annotations

from typing import Any

from rasr.errors import RasrError
from rasr.inference.restorer import Restorer
from rasr.models.finding import is_multi_step
from rasr.models.rasr_net import RASRNet
from rasr.models.weights import load_rasr_net
from rasr.references import KeptReferences


def open_net(
    weights: str,
    *,
    backbone: str | None = None,
    osediff_weights: str | None = None,
    fusion: str | None = None,
    references: int = 1,
) -> RASRNet:
    """RASR: the trained reference fusion of the weights (`infer.py method=rasr`).

    Args:
        weights: see `load_rasr_net`, as `backbone`, `osediff_weights` and `fusion`.
        backbone: replaces the one that the weights name.
        osediff_weights: merged into the backbone.
        fusion: which of a folder's fusions.
        references: how many there will be.
    """
    if is_multi_step(weights):
        raise RasrError(f"weights={weights} is a multi-step restorer; add method=refir_multistep")
    net = load_rasr_net(weights, backbone=backbone, osediff_weights=osediff_weights, fusion=fusion)
    if references and net.fusion is None:
        raise RasrError(
            f"weights={weights} is a backbone without a reference fusion; leave the references out "
            "(reference_kind=none), give the weights of a trained fusion, or add method=refir"
        )
    net.check_references(references)
    return net


def open_kept(path: str, net: Any, *, size: int | None = None) -> KeptReferences:
    """A folder of kept references for a net.

    Args:
        path: the folder.
        net: of `open_net` or `rasr.refir.open_refir`.
        size: see `KeptReferences`.

    Raises:
        RasrError: this net keeps nothing of references, or the folder is of another.
    """
    if not isinstance(net, RASRNet):
        raise RasrError(
            f"kept={path}: kept references need a one-step model and refir.canvas=own, else they depend on "
            "the photograph; leave kept= out"
        )
    if net.fusion is None:
        raise RasrError(f"kept={path}: these weights have no reference fusion; leave kept= out")
    if not net.fusion.can_be_kept:
        raise RasrError(
            f"kept={path}: with method.use_branch=true references depend on the photograph; leave one out"
        )
    return KeptReferences(path, net.fusion, net.backbone, size=size)


def open_restorer(net: Any, *, kept: str | None = None, **settings: Any) -> Restorer:
    """A `Restorer` (see there for `settings`) with the references kept for it."""
    restorer = Restorer(net, **settings)
    restorer.kept = None if kept is None else open_kept(kept, net)
    return restorer
