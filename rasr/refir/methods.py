"""The two systems behind one face, as `infer.py method=rasr|refir` chooses between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rasr.checks import check_number
from rasr.errors import RasrError
from rasr.inference import ReferenceLatents, Restorer
from rasr.models import RASRNet, load_rasr_net
from rasr.refir.bank_store import BankStore
from rasr.refir.config import InjectionConfig
from rasr.refir.multi_step import MultiStepChain
from rasr.refir.one_step import OneStepChain
from rasr.refir.references import Reference
from rasr.refir.restorer import ReFIRRestorer


class Method(Protocol):
    """Restores photographs with references."""

    kept: str
    """What of a reference may have been made before and be read from disk, for the record."""

    def restore(self, lq: Tensor, references: Sequence[Reference], *, prompt: str) -> Tensor:
        """(3, h, w) in [0, 1] -> (3, scale * h, scale * w) in [0, 1]; no references is the model alone."""

    def is_kept(self, reference: Reference) -> bool:
        """Whether that is there for this reference."""


class BranchMethod:
    """RASR: the trained reference branch, with one reference.

    Args:
        weights: see `load_rasr_net`, as `backbone` and `osediff_weights`.
        backbone: replaces the one that the weights name.
        osediff_weights: merged into the backbone.
        latents: folder of kept reference latents (`ReferenceLatents`).
        references: how many there will be; the branch takes one.
        settings: see `Restorer`.
    """

    kept = "latents"

    def __init__(
        self,
        weights: str,
        *,
        backbone: str | None = None,
        osediff_weights: str | None = None,
        latents: str | None = None,
        references: int = 1,
        **settings: Any,
    ) -> None:
        if references > 1:
            raise RasrError(f"references={references}: the trained branch takes one; add method=refir")
        if is_multi_step(weights):
            raise RasrError(f"weights={weights} is a multi-step restorer; add method=refir_multistep")
        self.latents = None if latents is None else ReferenceLatents.open(latents)
        self._latents_of = lru_cache(maxsize=1)(self._read_latents)  # asked by is_kept and by restore
        net = load_rasr_net(weights, backbone=backbone, osediff_weights=osediff_weights)
        if references and net.branch is None:
            raise RasrError(
                f"weights={weights} is a backbone without a reference branch; leave the references out "
                "(reference_kind=none), give the weights of a trained branch, or add method=refir"
            )
        _check_latents(self.latents, latents, net, references)
        self.restorer = Restorer(net, **settings)

    def restore(self, lq: Tensor, references: Sequence[Reference], *, prompt: str) -> Tensor:
        """See `Method`."""
        if not references:
            return self.restorer.restore(lq, prompt=prompt)
        z_ref = self._latents_of(references[0])
        ref = references[0].read() if z_ref is None else None
        return self.restorer.restore(lq, ref, ref_latents=z_ref, prompt=prompt)

    def is_kept(self, reference: Reference) -> bool:
        """See `Method`."""
        return self._latents_of(reference) is not None

    def _read_latents(self, reference: Reference) -> Tensor | None:
        if self.latents is None or reference.key is None:
            return None
        return self.latents.get(reference.key)


class ReFIRMethod:
    """ReFIR: references injected without training, into the backbone of the weights.

    Args:
        weights: see `load_rasr_net`, as `backbone` and `osediff_weights`; or the directory of a multi-step
            restorer, with `chain`.
        injection: how references are injected.
        backbone: replaces the one that the weights name.
        osediff_weights: merged into the backbone.
        latents: of the trained branch alone; refused.
        references: how many there will be; any number.
        conditioning_scale: strength of the trained branch with `use_branch`.
        chain: settings of `MultiStepChain`; None is the one-step backbone.
        banks: folder of kept banks.
        ref_size: see `ReFIRRestorer`.
        settings: see `ReFIRRestorer`.
    """

    kept = "banks"

    def __init__(
        self,
        weights: str,
        *,
        injection: InjectionConfig,
        backbone: str | None = None,
        osediff_weights: str | None = None,
        latents: str | None = None,
        references: int = 1,
        conditioning_scale: float = 0.5,
        chain: dict[str, Any] | None = None,
        banks: str | None = None,
        ref_size: int | None = 512,
        **settings: Any,
    ) -> None:
        check_number("conditioning_scale", conditioning_scale)
        if latents is not None:
            raise RasrError(
                f"latents={latents} are of the trained branch; with method=refir give method.banks="
            )
        if references > 1 and injection.canvas == "shared":
            raise RasrError(
                f"references={references}: refir.canvas=shared takes one reference, as the official code; "
                "give references=1, or refir.canvas=own"
            )
        if chain is not None:
            if backbone is not None or osediff_weights is not None:
                raise RasrError("backbone= and osediff_weights= belong to one-step weights; leave them out")
            built = MultiStepChain.from_pretrained(weights, **chain)
        elif is_multi_step(weights):
            raise RasrError(f"weights={weights} is a multi-step restorer; add method=refir_multistep")
        else:
            net = load_rasr_net(weights, backbone=backbone, osediff_weights=osediff_weights)
            if settings.get("use_branch") and net.branch is None:
                raise RasrError(
                    f"method.use_branch=true but weights={weights} has no trained branch; leave it out"
                )
            built = OneStepChain(net, conditioning_scale=conditioning_scale)
        store = None
        if banks is not None and isinstance(built, OneStepChain):
            store = BankStore.of_chain(banks, built, injection, ref_size)
        self.restorer = ReFIRRestorer(built, injection, ref_size=ref_size, banks=store, **settings)

    def restore(self, lq: Tensor, references: Sequence[Reference], *, prompt: str) -> Tensor:
        """See `Method`."""
        return self.restorer.restore(lq, references, prompt=prompt)

    def is_kept(self, reference: Reference) -> bool:
        """See `Method`."""
        store = self.restorer.banks
        key = reference.key
        return store is not None and key is not None and store.path(key, reference.prompt).is_file()


def is_multi_step(weights: str | Path) -> bool:
    """Whether that is the directory of a multi-step ControlNet restorer."""
    return (Path(weights) / "controlnet").is_dir()


def _check_latents(latents: ReferenceLatents | None, path: str | None, net: RASRNet, references: int) -> None:
    if latents is None:
        return
    if references == 0:
        raise RasrError(f"latents={path} are of references; give index= or reference= too")
    latents.check_vae(net.branch.vae)
