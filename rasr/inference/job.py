"""What `infer.py` does with its configuration."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from rasr.errors import RasrError
from rasr.fusion.registry import get_fusion
from rasr.inference.opening import open_restorer
from rasr.inference.photographs import Photograph, list_photographs
from rasr.inference.run import restore_photographs
from rasr.models.finding import find_weights
from rasr.references import ReferenceFinder
from rasr.retrieval import Retriever

RESTORER_KEYS = (
    "scale",
    "conditioning_scale",
    "color_fix",
    "process_size",
    "tile_size",
    "tile_overlap",
    "device",
)


def infer(cfg: DictConfig) -> None:
    """Restores photographs; the keys are those of `conf/infer.yaml`.

    Raises:
        RasrError: a wrong value, before the weights are loaded; or photographs that cannot be read.
    """
    if cfg.index is not None and cfg.reference is not None:
        raise RasrError(
            "both index= and reference= are given; give the one that the reference shall come from"
        )
    cfg.weights = str(cfg.weights or find_weights(None))
    output = Path(str(cfg.output))  # a name like 2024 comes as a number
    photographs = list_photographs(Path(str(cfg.input)), output, cfg.split)
    if cfg.fusion is not None:
        get_fusion(cfg.fusion)
    # Closed after a failure too: in a sweep the next job opens it again.
    index = nullcontext() if cfg.index is None else Retriever.open(cfg.index, device=cfg.device)
    with index as retriever:
        restore(cfg, photographs, output, retriever)


def restore(
    cfg: DictConfig, photographs: Sequence[Photograph], output: Path, retriever: Retriever | None
) -> None:
    """Opens what the configuration names, and restores."""
    extractor = instantiate(cfg.prompt)
    finder = ReferenceFinder(
        cfg.reference_kind,
        retriever=retriever,
        given=cfg.reference,
        listed={photograph.path: photograph.references for photograph in photographs},
        category=cfg.category,
        k=cfg.references,
        temperature=cfg.temperature,
        max_score=cfg.max_score,
        scale=cfg.scale,
    )
    fallback = instantiate(cfg.fallback)
    is_alone = finder.is_empty and not fallback.makes_references
    if cfg.kept is not None and is_alone and cfg.reference_kind == "found":
        raise RasrError(f"kept={cfg.kept} are of references; give index= or reference= too")
    net = instantiate(cfg.method)(
        cfg.weights,
        backbone=cfg.backbone,
        osediff_weights=cfg.osediff_weights,
        fusion=cfg.fusion,
        references=0 if is_alone else cfg.references,
    )
    restorer = open_restorer(net, kept=cfg.kept, **{key: cfg[key] for key in RESTORER_KEYS})
    restore_photographs(
        photographs,
        output,
        restorer,
        settings=OmegaConf.to_container(cfg, resolve=True),
        finder=finder,
        fallback=fallback,
        extractor=extractor,
        prompt_from=cfg.prompt_from,
        provenance=cfg.provenance,
    )
