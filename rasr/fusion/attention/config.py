"""What the injection of a reference looks like: every choice of the paper, of its ablations and of its code.

ReFIR (Guo et al., NeurIPS 2024), section 4.2, Tables 4, 5 and 9. Its official code differs from its paper;
both are presets here (`PRESETS`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rasr.errors import RasrError

_CHOICES = {
    "layer_schedule": ("constant", "cosine"),
    "gate_site": ("block_input", "resnet_input", "none"),
    "align": ("adain", "none"),
    "position": ("decoder", "encoder", "both"),
    "mode": ("separate", "replace", "concat"),
    "canvas": ("own", "shared"),
}


@dataclass(frozen=True)
class InjectionConfig:
    """Settings of the cross-image injection; the defaults are the paper's."""

    scale: float = 0.5
    """s in Eq. (2), in [0, 1]: how much of a fully gated pixel comes from the reference; 0 is none of it."""
    layer_schedule: str = "constant"
    """Factor on `scale` per site: "constant", or "cosine", a ramp from 0 at the first site (SeeSR's code)."""
    active: float = 0.4
    """Fraction of the diffusion steps, the last ones, that are injected into; 1 is all. Rounded up, so that a
    one-step model is always injected into."""
    gate_site: str = "block_input"
    """Features that the spatial gate compares: "block_input" (one gate per UNet block), "resnet_input" (one
    per residual block, after the skip was joined on), or "none": `scale` is then the weight everywhere
    (Table 4)."""
    align: str = "adain"
    """Eq. (3): "adain" gives the mixture the statistics of the target's own attention; "none" leaves it."""
    position: str = "decoder"
    """Self-attentions that are injected into (Table 5): "decoder", "encoder" (down blocks and mid block) or
    "both"."""
    mode: str = "separate"
    """How target and reference attention meet (Table 9): "separate" is Eq. (1) and (2); "replace" takes the
    reference's attention alone and "concat" attends to the keys of both at once. The last two have nothing to
    mix: of `scale` and the gate they only know 0."""
    share_noise: bool = False
    """Give all chains the same noise (SUPIR's code), where chains draw any."""
    canvas: str = "own"
    """"own": target and reference keep their own sizes; "shared": both are brought to one canvas by cropping
    and mirroring, as the official code does (`rasr.refir.canvas.shared_canvas`)."""

    def __post_init__(self) -> None:
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise RasrError(
                    f"refir.{name}={getattr(self, name)!r} is unknown; give one of {', '.join(choices)}"
                )
        for name in ("scale", "active"):
            if not isinstance(getattr(self, name), float | int):
                raise RasrError(f"refir.{name}={getattr(self, name)} is not a number; give one from 0 to 1")
        if not 0 <= self.scale <= 1:
            raise RasrError(f"refir.scale={self.scale} is outside 0..1; 0 is no reference, the paper has 0.5")
        if not 0 < self.active <= 1:
            raise RasrError(f"refir.active={self.active} is outside 0..1; give the fraction of last steps")

    @classmethod
    def preset(cls, name: str, **changes: object) -> InjectionConfig:
        """One of `PRESETS`, with `changes`."""
        if name not in PRESETS:
            raise RasrError(f"preset {name!r} is unknown; give one of {', '.join(PRESETS)}")
        return replace(PRESETS[name], **changes)

    def is_active(self, step: int, n_steps: int) -> bool:
        """Whether step `step` (from 0) of `n_steps` is injected into."""
        return self.scale > 0 and n_steps - step <= math.ceil(self.active * n_steps - 1e-9)

    def layer_weight(self, index: int, n_sites: int) -> float:
        """w(l) of the `index`-th (from 0) of `n_sites` sites, in execution order.

        The cosine ramp of the official SeeSR code, 0.5 (1 - cos(pi index / n_sites)): it starts at 0 and
        stays below 1.
        """
        if self.layer_schedule == "constant":
            return 1.0
        return 0.5 * (1 - math.cos(math.pi * index / n_sites))


PRESETS = {
    "paper": InjectionConfig(),
    # The codes choose their strength per script: 0.6 for given references, 1.0 for retrieved ones (SeeSR).
    "seesr": InjectionConfig(scale=0.6, layer_schedule="cosine", canvas="shared"),
    "supir": InjectionConfig(
        scale=1.0, active=1.0, gate_site="resnet_input", share_noise=True, canvas="shared"
    ),
    # Neither paper nor code knows a one-step model: injected once instead of 20 times. Choice, see README.
    "onestep": InjectionConfig(active=1.0),
}
