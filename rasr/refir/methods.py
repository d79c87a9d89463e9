"""The two systems behind one face, as `infer.py method=rasr|refir` chooses between them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rasr.checks import check_number
from rasr.errors import RasrError
from rasr.fusion.base import Kept, Provenance
from rasr.fusion.residual import ResidualFusion
from rasr.inference import KeptReferences, ReferenceLatents, Restorer
from rasr.models import RASRNet, load_rasr_net
from rasr.refir.bank_store import BankStore
from rasr.refir.config import InjectionConfig
from rasr.refir.multi_step import MultiStepChain
from rasr.refir.one_step import OneStepChain
from rasr.refir.references import Reference
from rasr.refir.restorer import ReFIRRestorer

RESIDUAL_FILE = ResidualFusion.file_name


class Method(Protocol):
    """Restores photographs with references."""

    kept: str
    """What of a reference may have been made before and be read from disk, for the record."""

    def restore(
        self,
        lq: Tensor,
        references: Sequence[Reference],
        *,
        prompt: str,
        traced: list[Provenance] | None = None,
    ) -> Tensor:
        """(3, h, w) in [0, 1] -> (3, scale * h, scale * w) in [0, 1]; no references is the model alone.

        `traced` gets a `Provenance` appended, if the method can say where its detail comes from.
        """

    def is_kept(self, reference: Reference) -> bool:
        """Whether that is there for this reference."""


class FusionMethod:
    """RASR: the trained reference fusion of the weights.

    Args:
        weights: see `load_rasr_net`, as `backbone`, `osediff_weights` and `fusion`.
        backbone: replaces the one that the weights name.
        osediff_weights: merged into the backbone.
        fusion: which of a folder's fusions.
        latents: folder of kept reference latents (`ReferenceLatents`), for the residual branch.
        kept: folder of kept references (`KeptReferences`), for other fusions.
        references: how many there will be.
        settings: see `Restorer`.
    """

    def __init__(
        self,
        weights: str,
        *,
        backbone: str | None = None,
        osediff_weights: str | None = None,
        fusion: str | None = None,
        latents: str | None = None,
        kept: str | None = None,
        references: int = 1,
        **settings: Any,
    ) -> None:
        if is_multi_step(weights):
            raise RasrError(f"weights={weights} is a multi-step restorer; add method=refir_multistep")
        if latents is not None and kept is not None:
            raise RasrError(
                "both latents= and kept= are given; give the one that belongs to the weights' fusion"
            )
        self.latents = None if latents is None else ReferenceLatents.open(latents)
        net = load_rasr_net(weights, backbone=backbone, osediff_weights=osediff_weights, fusion=fusion)
        if references and net.fusion is None:
            raise RasrError(
                f"weights={weights} is a backbone without a reference fusion; leave the references out "
                "(reference_kind=none), give the weights of a trained fusion, or add method=refir"
            )
        _check_latents(self.latents, latents, net, references)
        self.restorer = Restorer(net, **settings)
        self.restorer.check_references(references)
        self.store = None if kept is None else KeptReferences.of_net(kept, net, create=False)
        self.kept = "kept" if net.fusion is not None and net.fusion.keeps_any_size else "latents"
        self._kept_of = lru_cache(maxsize=max(1, references))(self._read_kept)  # asked by is_kept and restore

    def restore(
        self,
        lq: Tensor,
        references: Sequence[Reference],
        *,
        prompt: str,
        traced: list[Provenance] | None = None,
    ) -> Tensor:
        """See `Method`."""
        refs = [self._kept_of(reference) or reference.read() for reference in references]
        return self.restorer.restore(lq, refs, prompt=prompt, traced=traced)

    def is_kept(self, reference: Reference) -> bool:
        """See `Method`."""
        return self._kept_of(reference) is not None

    def _read_kept(self, reference: Reference) -> Kept | None:
        if reference.key is None:
            return None
        if self.latents is not None:
            latents = self.latents.get(reference.key)
            return None if latents is None else {"latents": latents}
        if self.store is None:
            return None
        kept = self.store.get(reference.key)
        if kept is None and self.store.file(reference.key).is_file():  # damaged, and said so
            kept = self.restorer.keep(reference.read())
            self.store.put(reference.key, kept)
        return kept


class ReFIRMethod:
    """ReFIR: references injected without training, into the backbone of the weights.

    Args:
        weights: see `load_rasr_net`, as `backbone` and `osediff_weights`; or the directory of a multi-step
            restorer, with `chain`.
        injection: how references are injected.
        backbone: replaces the one that the weights name.
        osediff_weights: merged into the backbone.
        fusion: with `use_branch`, which of a folder's fusions; only the residual can be combined.
        latents: of the trained branch alone; refused, as `kept`.
        kept: see `latents`.
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
        fusion: str | None = None,
        latents: str | None = None,
        kept: str | None = None,
        references: int = 1,
        conditioning_scale: float | None = None,
        chain: dict[str, Any] | None = None,
        banks: str | None = None,
        ref_size: int | None = 512,
        **settings: Any,
    ) -> None:
        conditioning_scale = 0.5 if conditioning_scale is None else conditioning_scale
        check_number("conditioning_scale", conditioning_scale)
        if latents is not None or kept is not None:
            given = f"kept={kept}" if latents is None else f"latents={latents}"
            raise RasrError(f"{given} are of the trained branch; with method=refir give method.banks=")
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
            if settings.get("use_branch") and fusion is None and Path(weights, RESIDUAL_FILE).is_file():
                fusion = ResidualFusion.name
            net = load_rasr_net(weights, backbone=backbone, osediff_weights=osediff_weights, fusion=fusion)
            if settings.get("use_branch") and not isinstance(net.fusion, ResidualFusion):
                raise RasrError(
                    f"method.use_branch=true but weights={weights} has no trained branch; leave it out"
                )
            built = OneStepChain(net, conditioning_scale=conditioning_scale)
        store = None
        if banks is not None and isinstance(built, OneStepChain):
            store = BankStore.of_chain(banks, built, injection, ref_size)
        self.restorer = ReFIRRestorer(built, injection, ref_size=ref_size, banks=store, **settings)

    def restore(
        self,
        lq: Tensor,
        references: Sequence[Reference],
        *,
        prompt: str,
        traced: list[Provenance] | None = None,
    ) -> Tensor:
        """See `Method`; attention mixes places, so there is nothing to trace."""
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
    if not isinstance(net.fusion, ResidualFusion):
        raise RasrError(
            f"latents={path} are for the residual branch; with fusion={net.fusion.name} give kept=FOLDER, or "
            "add fusion=residual"
        )
    latents.check_vae(net.fusion.vae)
