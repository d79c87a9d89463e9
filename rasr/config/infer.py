"""The keys of infer.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rasr.config.keys import REQUIRED, choice, flag, number, text, whole


@dataclass
class InferKeys:
    """See `rasr.config.keys`."""

    input: str = text(
        REQUIRED,
        (
            "a photograph, a folder of photographs, or a manifest (.csv, .parquet): each row's lq, or"
            " its image where it has no lq, with the row's own prompt and, without index= and "
            "reference=, its own references"
        ),
    )
    split: str | None = text("test", "rows of the manifest to take", may_be_null=True)
    output: str = text(REQUIRED, "folder for the results")
    weights: str | None = text(
        None,
        (
            "folder or hub id of a net, weight file or checkpoint of train.py, or a diffusers "
            "directory; null is the repository's own weights/rasr-small"
        ),
    )
    index: str | None = text(None, "reference index made by index.py")
    reference: str | None = text(
        None, "instead of an index: one image for all, or a folder with one per name"
    )
    min_score: float | None = number(
        None, "least cosine of a near reference, below which fallback= acts; null takes all", least=-1, most=1
    )
    max_score: float | None = number(
        None,
        "references above this cosine are near-duplicates and passed over; null takes all (the "
        "photograph itself, by its content, is never its own reference)",
        least=-1,
        most=1,
    )
    reference_kind: str = choice(
        "found",
        ("found", "none", "self", "random"),
        "found takes them from index= or reference=; the others are rows of ReFIR's Table 6: "
        "none, self (the photograph enlarged) or random (of the index)",
    )
    references: int = whole(
        1,
        "references per photograph: correspondence takes for every place the one that supports it"
        " best, refir weighs them by their scores, residual takes one",
    )
    temperature: float = number(1.0, "of the softmax that weighs several references, above 0", least=1e-6)
    category: str | None = text(None, "search the index in this category only")
    backbone: str | None = text(None, "replaces the backbone that the weight file names")
    osediff_weights: str | None = text(
        None, "osediff.pkl or its safetensors form, to be merged into the backbone"
    )
    scale: int = whole(4, "enlargement per side (OSEDiff's upscale)")
    fusion: str | None = text(
        None,
        "which of the weights' fusions takes the references in: correspondence or residual; null "
        "is the first that they have",
    )
    provenance: bool = flag(
        False, "true: pictures of where every place's detail comes from, in OUTPUT/provenance"
    )
    kept: str | None = text(
        None, "folder of kept references (index.py kept=...), for speed; what is missing is added"
    )
    conditioning_scale: float | None = number(
        None,
        "strength of the references, 0 to 1; null is the fusion's own (residual 0.5, correspondence 1)",
        least=0,
    )
    prompt_from: str = choice(
        "lq_ref",
        ("none", "lq", "ref", "lq_ref"),
        "prompts used: none, lq, ref (kept in the index) or lq_ref",
    )
    color_fix: str | None = choice(
        None,
        ("adain", "wavelet", "anchor", "none"),
        (
            "colours of the photograph: adain, wavelet, anchor or none; null is what the weights ask "
            "for (a backbone alone: adain)"
        ),
    )
    tile_size: int | None = whole(
        512, "side of the tiles in which large results are restored; null never tiles", may_be_null=True
    )
    tile_overlap: int = whole(64, "pixels that neighbouring tiles share", least=0)
    process_size: int | None = whole(
        None,
        "a photograph with a side below process_size / scale is enlarged first; SD-2.1 backbones "
        "want 512, as OSEDiff, small ones null",
    )
    device: str = text("auto", "auto, cpu, cuda or mps")

    ALSO: ClassVar[dict[str, tuple[str, str]]] = {
        "method": (
            "rasr",
            "rasr, the trained branch; refir, references injected without training (any backbone); "
            "refir_multistep, into a ControlNet restorer like SeeSR",
        ),
        "refir": (
            "onestep",
            "how refir injects: onestep, paper, seesr or supir; refir.scale=0.3, and its other keys"
            " are in docs/configuration.md",
        ),
        "fallback": (
            "origin_lrm",
            "without a near reference: origin_lrm restores without, gen_ref generates one, "
            "ada_gen_ref tries both always and keeps the better",
        ),
        "prompt": (
            "sidecar",
            "prompt of a photograph: sidecar (its .txt), none, or given with prompt.text='a cat'",
        ),
        "experiment": ("null", "a complete comparison from conf/experiment, such as table3"),
    }
    """Groups and keys within them, with what `--help` shows of them."""
