"""The keys of index.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rasr.config.keys import REQUIRED, choice, flag, number, text, whole


@dataclass
class IndexKeys:
    """See `rasr.config.keys`."""

    job: str = choice(
        "build",
        ("build", "verify", "neighbours", "copy"),
        "what to do; the first word of the command does as well",
    )
    database: str | None = text(
        None,
        (
            "folder of images; its first-level subfolders are the categories, a .txt beside an image "
            "is its prompt; or a manifest (.csv, .parquet)"
        ),
    )
    split: str | None = text(None, "of a manifest, the rows of this split only")
    index: str = text(
        REQUIRED,
        (
            "folder of the index: made, continued or brought up to date; or the URL of a collection "
            "on a Qdrant server (http://host:6333/photos, QDRANT_API_KEY)"
        ),
    )
    engine: str = text(
        "edge",
        (
            "of a new index in a folder: edge (Qdrant inside this process; fast, one process at a "
            "time) or flat (exact; many readers, read-only media)"
        ),
    )
    quantize: bool = flag(False, "of a new index: search int8 copies of the vectors, for millions of entries")
    patch_size: int | None = whole(
        None, "of a new index: side of the overlapping crops that each image contributes"
    )
    patch_overlap: int = whole(128, "pixels that neighbouring crops share at least", least=0)
    batch_size: int = whole(16, "images that are embedded together (per process)")
    assign: str | None = text(
        None,
        (
            "a manifest whose column `references` is filled with the best references of each of its "
            "images, never the image itself"
        ),
    )
    references: int = whole(5, "how many references each image of assign= or neighbours gets")
    max_score: float | None = number(
        None,
        "assign, neighbours: hits above this cosine are near-duplicates, passed over",
        least=-1,
        most=1,
    )
    input: str | None = text(None, "neighbours: the images, a folder or a manifest")
    output: str | None = text(None, "neighbours: the Parquet file; copy: the new index")
    check_hashes: bool = flag(True, "verify: read every image and compare its content; false: its existence")
    kept: str | None = text(
        None,
        (
            "folder for what the weights' fusion keeps of the images: infer.py kept=FOLDER then need "
            "not compute it"
        ),
    )
    weights: str | None = text(None, "kept: weights that make it; null is the repository's own")
    fusion: str | None = text(None, "kept: which of their fusions; null is the first that they have")
    backbone: str | None = text(None, "kept: replaces the backbone that the weights name")
    kept_size: int = whole(512, "kept: fusion=residual, side of the square that is cut from each image")
    device: str = text("auto", "kept, neighbours: where the net or the encoder runs")

    ALSO: ClassVar[dict[str, tuple[str, str]]] = {
        "encoder": (
            "dinov2",
            "dinov2, dinov3, clip, vgg16, resnet50; random; color_gradient, without weights",
        ),
        "encoder.weights": ("null", "local file of weights; null takes the hub or its cache"),
        "encoder.img_size": ("224", "side of the square that the model sees"),
        "encoder.precision": ("fp32", "fp32 or bf16"),
        "encoder.pool": (
            "head",
            "head: features of the classifier's input; avg: mean of the last feature map",
        ),
        "encoder.device": ("auto", "auto takes a GPU if there is one"),
    }
    """Groups and keys within them, with what `--help` shows of them."""
