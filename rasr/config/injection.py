"""What the injection of a reference looks like: every choice of the paper, of its ablations and of its code.

ReFIR (Guo et al., NeurIPS 2024), section 4.2, Tables 4, 5 and 9. Its official code differs from its paper;
both are presets here (`PRESETS`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from rasr.config.keys import check_all, choice, flag, number
from rasr.errors import RasrError


@dataclass(frozen=True)
class InjectionConfig:
    """Settings of the cross-image injection, the keys of `refir=`; the defaults are the paper's."""

    scale: float = number(
        0.5,
        "s in Eq. (2): how much of a fully gated pixel comes from the reference; 0 is none",
        least=0,
        most=1,
    )
    layer_schedule: str = choice(
        "constant",
        ("constant", "cosine"),
        "factor on scale per site: constant, or cosine, a ramp from 0 at the first site (SeeSR's code)",
    )
    active: float = number(
        0.4,
        "fraction of the diffusion steps, the last ones, that are injected into, above 0; rounded up, so "
        "that a one-step model always is",
        least=0,
        most=1,
    )
    gate_site: str = choice(
        "block_input",
        ("block_input", "resnet_input", "none"),
        "features that the spatial gate compares: block_input (one gate per UNet block), resnet_input (one "
        "per residual block, after the skip was joined on), or none: scale is then the weight everywhere "
        "(Table 4)",
    )
    align: str = choice(
        "adain",
        ("adain", "none"),
        "Eq. (3): adain gives the mixture the statistics of the target's own attention; none leaves it",
    )
    position: str = choice(
        "decoder",
        ("decoder", "encoder", "both"),
        "self-attentions that are injected into (Table 5); the encoder is the down blocks and the mid block",
    )
    mode: str = choice(
        "separate",
        ("separate", "replace", "concat"),
        "how target and reference attention meet (Table 9): separate is Eq. (1) and (2); replace takes the "
        "reference's alone, concat attends to the keys of both: of scale and the gate these two only know 0",
    )
    share_noise: bool = flag(False, "the same noise for all chains (SUPIR's code), where chains draw any")
    canvas: str = choice(
        "own",
        ("own", "shared"),
        "own: target and reference keep their sizes; shared: both are brought to one canvas by cropping and "
        "mirroring, as the official code does (rasr.refir.canvas)",
    )

    def __post_init__(self) -> None:
        check_all(self, prefix="refir.")
        if self.active == 0:
            raise RasrError(
                "refir.active=0 injects nowhere; give the fraction of last steps, or refir.scale=0"
            )

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
