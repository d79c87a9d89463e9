"""Weights of a RASRNet as one works with them: loaded from wherever they are, saved after a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rasr.models.loading import load_net
from rasr.models.rasr_net import RASRNet
from rasr.models.weight_files import write_fusion


def save_weights(net: RASRNet, path: str | Path) -> Path:
    """Writes what the net has learnt: one safetensors file, or a diffusers directory for a backbone.

    Args:
        net: a net from one of the builders.
        path: target without suffix; a fusion goes to `path.safetensors`, a backbone to the directory `path`.

    Returns:
        The file or directory written; a file appears only when complete.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if net.fusion is None:
        net.backbone.save_pretrained(path)
        return path
    target = path.with_suffix(".safetensors")
    write_fusion(net, target)
    return target


def load_rasr_net(weights: str | Path | None = None, **options: Any) -> RASRNet:
    """A net in evaluation mode, ready for inference.

    Args:
        weights: directory or hub id (`owner/name`) of a net or of a backbone alone, `.safetensors` of
            `save_weights`, or `.ckpt` of training; None is what comes with the repository.
        options: of `rasr.models.loading.load_net`: `backbone`, `osediff_weights`, `fusion`, `merge`.

    Raises:
        RasrError: missing, damaged or foreign file, no backbone, or a hub out of reach.
    """
    return load_net(RASRNet, weights, **options)
