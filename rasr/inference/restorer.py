"""Restores one image of any size: enlarge, pad to the size contract, run RASRNet, crop back.

Retrieval is the caller's: give a reference image or none.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rasr.errors import RasrError
from rasr.image_ops import cover_and_crop, pad_to_multiple, resize_bicubic
from rasr.models import RASRNet


class Restorer:
    """x`scale` restoration with a RASRNet.

    Args:
        net: network, in evaluation mode.
        scale: enlargement per side.
        conditioning_scale: strength of the reference, w in Eq. 6 (paper at inference: 0.5).
        device: "cpu", "cuda", "mps", or "auto" for the best that is there.
    """

    def __init__(
        self, net: RASRNet, *, scale: int = 4, conditioning_scale: float = 0.5, device: str = "auto"
    ) -> None:
        if scale < 1:
            raise RasrError(f"scale={scale} cannot enlarge; give 1 or more")
        self.scale = scale
        self.conditioning_scale = conditioning_scale
        self.device = resolve_device(device)
        self.net = net.to(self.device).eval()

    @torch.inference_mode()
    def restore(self, lq: Tensor, ref: Tensor | None = None, *, prompt: str = "") -> Tensor:
        """Restores one image.

        Args:
            lq: (3, h, w) in [0, 1], any size from 1x1.
            ref: (3, H, W) in [0, 1], any size; None restores with the backbone alone. It is scaled to cover
                the padded canvas and its centre is cut out, so nothing of it is distorted.
            prompt: text for the backbone.

        Returns:
            sr: (3, scale * h, scale * w) in [0, 1], float32, on the CPU.
        """
        height, width = lq.shape[-2] * self.scale, lq.shape[-1] * self.scale
        lq_up = resize_bicubic(lq[None].to(self.device), (height, width))
        lq_up = pad_to_multiple(lq_up, self.net.backbone.size_multiple)
        if ref is not None:
            ref = cover_and_crop(ref[None].to(self.device), tuple(lq_up.shape[-2:]))
        sr = self.net(lq_up, ref, prompt=[prompt], conditioning_scale=self.conditioning_scale)
        return sr[0, :, :height, :width].float().cpu()


def resolve_device(device: str) -> torch.device:
    """ "auto" -> CUDA, else MPS, else CPU; any other name is taken as it is."""
    if device != "auto":
        try:
            resolved = torch.device(device)
        except RuntimeError as error:
            raise RasrError(f"device={device!r} is unknown; give auto, cpu, cuda or mps") from error
        if resolved.type == "cuda" and not torch.cuda.is_available():
            raise RasrError(f"device={device} but no CUDA device is visible; give device=auto or device=cpu")
        return resolved
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
