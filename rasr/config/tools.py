"""The keys of the small commands, `python -m rasr.tools NAME`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from rasr.config.keys import REQUIRED, anything, choice, flag, number, text, whole


@dataclass
class ConvertOsediffKeys:
    """Of `convert_osediff`."""

    source: str = text(REQUIRED, "osediff.pkl")
    target: str = text(REQUIRED, "file to write, ending in .safetensors")


@dataclass
class DegradeKeys:
    """Of `degrade`."""

    input: str = text(REQUIRED, "a photograph or a folder of photographs")
    output: str = text(REQUIRED, "folder for the results, not inside input")
    seed: int = whole(
        REQUIRED, "a whole number; with an image's path below input it decides what happens to it", least=0
    )
    scale: int = whole(4, "shrinking per side")
    gt_size: int | None = whole(
        None,
        (
            "side of the square cut from every image's centre; null keeps images whole, but for "
            "pixels at the right and bottom that scale does not divide"
        ),
    )

    ALSO: ClassVar[dict[str, tuple[str, str]]] = {
        "degradation": (
            "osediff",
            "osediff, realesrgan, bicubic, mild, range, or fixed (the same for all: "
            "conf/degradation/fixed.yaml)",
        ),
    }
    """Groups and keys within them, with what `--help` shows of them."""


@dataclass
class GalleryKeys:
    """Of `gallery`."""

    input: str = text(REQUIRED, "queries: an image or a folder")
    index: str = text(REQUIRED, "reference index made by index.py")
    output: str = text(REQUIRED, "the HTML file")
    k: int = whole(5, "references per query")
    max_score: float | None = number(
        None, "hits above this cosine are near-duplicates, passed over", least=-1, most=1
    )
    thumbnail: int = whole(180, "longest side of the pictures in pixels", least=16)
    device: str = text("auto", "where the encoder runs: auto, cpu, cuda or mps")


@dataclass
class InspectKeys:
    """Of `inspect`."""

    input: str = text(REQUIRED, "photograph")
    reference: str = text(REQUIRED, "reference image")
    weights: str = text(REQUIRED, "weight file or checkpoint of train.py, or a diffusers directory")
    output: str = text(REQUIRED, "the picture (PNG)")
    backbone: str | None = text(None, "replaces the backbone that the weight file names")
    osediff_weights: str | None = text(
        None, "osediff.pkl or its safetensors form, to be merged into the backbone"
    )
    scale: int = whole(4, "enlargement per side")
    conditioning_scale: float | None = number(
        None,
        "strength: of the trained branch with method.use_branch=true, else a factor on refir.scale",
        least=0,
    )
    prompt: Any = anything("", "text of the photograph; the reference's is the .txt beside it")
    device: str = text("auto", "auto, cpu, cuda or mps")

    ALSO: ClassVar[dict[str, tuple[str, str]]] = {
        "method": ("refir", "refir, or refir_multistep, whose last step is shown"),
        "refir": ("onestep", "how refir injects, as for infer.py"),
    }
    """Groups and keys within them, with what `--help` shows of them."""


@dataclass
class InterpolateKeys:
    """Of `interpolate`."""

    first: str = text(REQUIRED, "diffusers directory or hub id")
    second: str = text(REQUIRED, "diffusers directory or hub id")
    weight: float = number(REQUIRED, "of the second, 0 to 1", least=0, most=1)
    output: str = text(REQUIRED, "folder to write")


@dataclass
class KeepKeys:
    """Of `keep`."""

    index: str = text(REQUIRED, "reference index made by index.py")
    weights: str = text(REQUIRED, "weight file or checkpoint of train.py, or a diffusers directory")
    kept: str = text(REQUIRED, "folder for what is kept")
    backbone: str | None = text(None, "replaces the backbone that the weight file names")
    osediff_weights: str | None = text(
        None, "osediff.pkl or its safetensors form, to be merged into the backbone"
    )
    ref_size: int | None = whole(
        512,
        "longer references are shrunk to this long side; as infer.py's method.ref_size",
        may_be_null=True,
    )
    device: str = text("auto", "auto, cpu, cuda or mps")

    ALSO: ClassVar[dict[str, tuple[str, str]]] = {
        "refir": (
            "onestep",
            "how they will be injected: refir.position and refir.gate_site decide what is kept",
        ),
    }
    """Groups and keys within them, with what `--help` shows of them."""


@dataclass
class MakePretrainedKeys:
    """Of `make_pretrained`."""

    weights: Any = anything(
        REQUIRED,
        "weight file or checkpoint of train.py, or a backbone's directory; [A,B] for several fusions",
    )
    output: str = text(REQUIRED, "folder to write")
    backbone: str | None = text(None, "replaces the backbone that the weight file names")
    dtype: str = choice(
        "float16", ("float16", "bfloat16", "float32"), "of the tensors: float16, bfloat16 or float32"
    )
    push_to_hub: str | None = text(None, "also upload it, under this hub id (owner/name)")
    private: bool = flag(False, "of a new hub repository")


@dataclass
class MakeTinyKeys:
    """Of `make_tiny`."""

    output: str = text(REQUIRED, "directory to write")
    seed: int = whole(0, "seed of the weights", least=0)


@dataclass
class PreviewKeys:
    """Of `preview`."""

    output: str = text("outputs/preview.png", "the PNG to write")
    rows: int = whole(8, "how many samples it shows, in the order of training")
