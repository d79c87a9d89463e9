"""The parts of a RASRNet from its configuration: the backbone, and a fusion that fits it."""

from __future__ import annotations

from rasr.backbones.one_step import OneStepBackbone
from rasr.config.net import RASRNetConfig
from rasr.errors import RasrError
from rasr.fusion.base import ReferenceFusion
from rasr.fusion.registry import get_fusion


def build_parts(
    config: RASRNetConfig, backbone: OneStepBackbone | None = None
) -> tuple[OneStepBackbone, ReferenceFusion]:
    """A backbone and a freshly initialised fusion.

    Args:
        config: see the class.
        backbone: a base backbone already built, instead of the one that the configuration names; OSEDiff's
            weights are merged into it in place.

    Raises:
        RasrError: an unknown fusion, or settings that do not fit it or the backbone.
    """
    config.check()
    fusion = get_fusion(config.fusion)
    fusion.check_config(config)
    if backbone is None:
        backbone = OneStepBackbone.from_pretrained(config.backbone, timestep=config.timestep)
    n_steps = backbone.noise_scheduler.config.num_train_timesteps
    if not 0 <= config.ref_timestep < n_steps:
        raise RasrError(
            f"ref_timestep={config.ref_timestep} is outside the schedule; give 0 .. {n_steps - 1}"
        )
    # A fusion that copies base weights comes before the merge.
    built = fusion.from_config(backbone, config) if fusion.copies_base_weights else None
    if config.osediff_weights is not None:
        backbone.merge_osediff(config.osediff_weights)
    return backbone, built or fusion.from_config(backbone, config)
