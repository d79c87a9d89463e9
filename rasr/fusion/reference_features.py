"""What the residual branch hands to the decoder, and the layers of the branch that learn."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from diffusers import ControlNetModel
from torch import Tensor, nn

from rasr.errors import RasrError


@dataclass(frozen=True)
class ReferenceFeatures:
    """Residuals of the branch for a batch of references, before any strength is applied."""

    down_block_res_samples: tuple[Tensor, ...]
    """One (B, C_i, h_i, w_i) tensor per skip feature of the UNet, in encoder order (12 on SD-2.1)."""
    mid_block_res_sample: Tensor
    """(B, C, h, w) at the mid block's size."""

    def map(self, function: Callable[[Tensor], Tensor]) -> ReferenceFeatures:
        """A copy with `function` applied to every tensor (move, cast, expand, index)."""
        down = tuple(function(t) for t in self.down_block_res_samples)
        return ReferenceFeatures(down, function(self.mid_block_res_sample))

    def state_dict(self) -> dict[str, Tensor]:
        """Flat tensors, fit for safetensors."""
        tensors = {f"down.{i:02d}": t.contiguous() for i, t in enumerate(self.down_block_res_samples)}
        return tensors | {"mid": self.mid_block_res_sample.contiguous()}

    @classmethod
    def from_state_dict(cls, tensors: Mapping[str, Tensor]) -> ReferenceFeatures:
        """Inverse of `state_dict`."""
        down = tuple(tensors[key] for key in sorted(tensors) if key.startswith("down."))
        return cls(down, tensors["mid"])


def lora_targets(net: ControlNetModel, ends: Sequence[str] | None = None) -> list[str]:
    """Names of the Linear and Conv2d layers inside the down blocks that get LoRA.

    Args:
        net: the branch's network.
        ends: ends of names, whole words between dots; None is all of them: attention, feed-forward,
            projections, convolutions, shortcuts, time projections, downsamplers.

    Raises:
        RasrError: an end that no layer's name has.
    """
    names = [
        f"down_blocks.{name}"
        for name, module in net.down_blocks.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d)
    ]
    if ends is None:
        return names
    for end in ends:
        if not any(name.endswith(f".{end}") for name in names):
            known = ", ".join(sorted({name.split(".")[-1] for name in names if not name[-1].isdigit()}))
            raise RasrError(f"lora_layers: no layer's name ends with {end!r}; give some of {known}")
    return [name for name in names if any(name.endswith(f".{end}") for end in ends)]


def crop_latents(latents: Tensor, canvas: tuple[int, int]) -> Tensor:
    """Cuts the centre of square latents to the aspect of a canvas (H, W), like `cover_and_crop` an image."""
    height, width = latents.shape[-2:]
    factor = min(height / canvas[0], width / canvas[1])
    size = (max(1, round(canvas[0] * factor)), max(1, round(canvas[1] * factor)))
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return latents[..., top : top + size[0], left : left + size[1]]
