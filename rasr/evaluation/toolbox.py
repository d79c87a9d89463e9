"""The metrics of a protocol, ready to measure; those of pyiqa (`pip install -e '.[eval]'`) where it is there.

pyiqa fetches its weights from the internet. Where a file is neither in its place nor within reach, the
metric is unavailable, and says which file it wants and where.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rasr.errors import RasrError
from rasr.evaluation.metrics import METRICS
from rasr.evaluation.protocol import EvaluationProtocol
from rasr.pretrained import is_within_reach

_HUB = "https://huggingface.co/chaofengc/IQA-PyTorch-Weights/resolve/main/"
_TORCHVISION = "https://download.pytorch.org/models/"
_VIT = "timm/vit_base_patch8_224.augreg2_in21k_ft_in1k"
_CLIP = "https://openaipublic.azureedge.net/clip/models/afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762/"
# {variant in pyiqa: the files it loads}. NIQE's are in the basicsr package; FSIM (of colour), GMSD (of Y) and
# VIF (of Y) are formulas.
FILES: dict[str, list[str]] = {
    "fsim": [],
    "gmsd": [],
    "vif": [],
    "lpips": [f"{_TORCHVISION}alexnet-owt-7be5be79.pth", f"{_HUB}LPIPS_v0.1_alex-df73285e.pth"],
    "lpips-vgg": [f"{_TORCHVISION}vgg16-397923af.pth", f"{_HUB}LPIPS_v0.1_vgg-a78928a0.pth"],
    "dists": [f"{_TORCHVISION}vgg16-397923af.pth", f"{_HUB}DISTS_weights-f5e65c96.pth"],
    "fid": [f"{_HUB}pt_inception-2015-12-05-6726825d.pth"],
    "niqe": [],
    "musiq": [f"{_HUB}musiq_koniq_ckpt-e95806b9.pth"],
    "clipiqa": [f"{_CLIP}RN50.pt"],
    "maniqa": [f"https://huggingface.co/{_VIT}", f"{_HUB}ckpt_koniq10k.pt"],
    "maniqa-pipal": [f"https://huggingface.co/{_VIT}", f"{_HUB}MANIQA_PIPAL-ae6d356b.pth"],
}
# These look at random patches of an image.
_RANDOM = {"maniqa", "maniqa-pipal"}


class Unavailable(Exception):
    """Why a metric cannot be had here, with the mend."""


@dataclass
class Metric:
    """A metric with its weights."""

    name: str
    identity: str
    """What its figures depend on besides the images."""
    measure: Any
    """(sr, gt or None), each (B, 3, H, W) in [0, 1] -> (B,); of a set: (gt folder, sr folder) -> figure."""
    is_batched: bool = True
    """False: images one by one, as their figures draw on randomness."""


def open_metrics(
    names: Sequence[str], protocol: EvaluationProtocol, device: str | torch.device
) -> tuple[dict[str, Metric], dict[str, str]]:
    """Load what the names stand for.

    Returns:
        The metrics that are there, and {name: reason} of those that are not; both in the order of `names`.
    """
    metrics, unavailable = {}, {}
    for name in names:
        try:
            metrics[name] = _open(name, protocol, device)
        except Unavailable as error:
            unavailable[name] = str(error)
    return metrics, unavailable


def versions() -> dict[str, str | None]:
    """Of the packages that the figures depend on; None is absent."""
    found: dict[str, str | None] = {}
    for package in ("rasr", "pyiqa", "torch", "torchvision", "scikit-image", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    return found


def _open(name: str, protocol: EvaluationProtocol, device: str | torch.device) -> Metric:
    border = protocol.crop_border
    own = METRICS[name].measure
    if own is not None:
        identity = f"{name} color={protocol.color} crop={border}"
        return Metric(name, identity, _cropped(partial(own, color=protocol.color), border))
    variant = "fid" if name == "kid" else protocol.variant(name)
    net = _create(variant, device)
    identity = f"{name} variant={variant} pyiqa={version('pyiqa')} crop={border} {torch.device(device).type}"
    if not METRICS[name].per_image:
        return Metric(name, identity, partial(_measure_folders, net, name == "kid"))
    measure = _cropped(partial(_run, net, METRICS[name].needs_gt, variant), border)
    return Metric(name, identity, measure, is_batched=variant not in _RANDOM)


def _create(variant: str, device: str | torch.device) -> Any:
    if find_spec("pyiqa") is None:
        raise Unavailable("it needs pyiqa; install it with pip install -e '.[eval]'")
    absent = [url for url in FILES.get(variant, []) if not _is_here(url)]
    if absent and not all(is_within_reach(url) for url in absent):
        wanted = " and ".join(f"{url} at {place_of(url)}" for url in absent)
        raise Unavailable(f"its weights are not here and not within reach; put {wanted}")
    import pyiqa  # seconds of import

    logging.getLogger("pyiqa").setLevel(logging.WARNING)  # else a line per network
    try:
        with _no_unpickling(), redirect_stdout(None):
            if variant == "niqe":
                with _niqe_parameters() as file:
                    return pyiqa.create_metric("niqe", device=device, pretrained_model_path=str(file))
            return pyiqa.create_metric(variant, device=device)
    except Exception as error:  # of torch, timm, the network, a missing package
        reason = " ".join(str(error).split()) or type(error).__name__
        raise Unavailable(f"pyiqa cannot make {variant!r} ({reason[:200]})") from error


def place_of(url: str) -> str:
    """Where a file must lie to be found."""
    hub = Path(torch.hub.get_dir())
    name = url.rsplit("/", 1)[-1]
    if url.startswith(_HUB):
        return str(hub / "pyiqa" / name)
    if url.startswith(_CLIP):
        return str(hub / "clip" / name)
    if url.startswith(_TORCHVISION):
        return str(hub / "checkpoints" / name)
    return "the Hugging Face cache"


def _is_here(url: str) -> bool:
    if url.startswith((_HUB, _CLIP, _TORCHVISION)):
        return Path(place_of(url)).is_file()
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(_VIT, "model.safetensors"), str)


@contextmanager
def _niqe_parameters() -> Iterator[Path]:
    """The standard parameters in the form that pyiqa reads; they come with basicsr, which nothing imports."""
    import scipy.io

    package = find_spec("basicsr")
    if package is None or package.origin is None:
        raise Unavailable("its parameters come with basicsr; install it with pip install -e .")
    with np.load(Path(package.origin).parent / "metrics" / "niqe_pris_params.npz") as kept:
        parameters = {"mu_prisparam": kept["mu_pris_param"], "cov_prisparam": kept["cov_pris_param"]}
    with tempfile.TemporaryDirectory() as folder:
        scipy.io.savemat(Path(folder) / "niqe.mat", parameters)
        yield Path(folder) / "niqe.mat"


@contextmanager
def _no_unpickling() -> Iterator[None]:
    """pyiqa calls `torch.load(weights_only=False)`; the environment overrules it."""
    key = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(key)
    os.environ[key] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[key]
        else:
            os.environ[key] = before


def _cropped(measure: Any, border: int) -> Any:
    def crop(image: Tensor | None) -> Tensor | None:
        return image if image is None or not border else image[..., border:-border, border:-border]

    return lambda sr, gt: measure(crop(sr), crop(gt))


def _run(net: Any, needs_gt: bool, variant: str, sr: Tensor, gt: Tensor | None) -> Tensor:
    try:
        with torch.random.fork_rng(enabled=variant in _RANDOM):
            if variant in _RANDOM:
                torch.manual_seed(123)  # pyiqa's own default
            return net(sr, gt) if needs_gt else net(sr)
    except (AssertionError, IndexError, RuntimeError, ValueError) as error:  # each metric has its own limits
        reason = " ".join(str(error).split()) or type(error).__name__
        size = f"{sr.shape[-1]}x{sr.shape[-2]}"
        raise RasrError(f"{variant} cannot measure {size} ({reason[:120]}); leave it out") from error


def _measure_folders(net: Any, is_kid: bool, gt: Path, sr: Path) -> float:
    options = {"distance_type": "mmd"} if is_kid else {}
    with redirect_stdout(None):
        return float(net(str(gt), str(sr), verbose=False, num_workers=0, **options))
