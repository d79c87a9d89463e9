"""What has another name than in earlier versions: classes that stored configurations name, and commands."""

import sys
from typing import Any, NoReturn

# A dotted name, or the beginning of several; the longest that fits counts.
MOVED_TARGETS = {
    "rasr.data.RealESRGANDegradation": "rasr.degradation.RealESRGANDegradation",
    "rasr.data.degradation": "rasr.degradation.pipeline",
    "rasr.refir.FusionMethod": "rasr.inference.open_net",
    "rasr.refir.OriginLRM": "rasr.references.OriginLRM",
    "rasr.refir.GenRef": "rasr.references.GenRef",
    "rasr.refir.AdaGenRef": "rasr.references.AdaGenRef",
    "rasr.refir.CaptionToImage": "rasr.references.CaptionToImage",
    "rasr.refir.NoReferenceMetric": "rasr.evaluation.no_reference.NoReferenceMetric",
    "rasr.evaluation.BicubicMethod": "rasr.evaluation.BicubicBaseline",
    "rasr.evaluation.FolderMethod": "rasr.evaluation.FolderBaseline",
    "rasr.evaluation.InferMethod": "rasr.evaluation.InferBaseline",
    "rasr.evaluation.SpandrelMethod": "rasr.evaluation.SpandrelBaseline",
}

MOVED_COMMANDS = {
    "python -m rasr.data.degrade": "degrade input=... output=... seed=...",
    "python -m rasr.data.preview": "preview data.train=...",
    "python -m rasr.refir.inspect": "inspect input=... reference=... weights=... output=...",
    "python -m rasr.refir.keep_banks": "keep index=... weights=... kept=...",
    "python -m rasr.retrieval.gallery": "gallery input=... index=... output=...",
    "python scripts/convert_osediff.py": "convert_osediff source=osediff.pkl target=osediff.safetensors",
    "python scripts/interpolate_backbones.py": "interpolate first=... second=... weight=0.5 output=...",
    "python scripts/make_pretrained.py": "make_pretrained weights=... output=...",
    "python scripts/make_tiny.py": "make_tiny output=...",
}


def current_target(name: str) -> str:
    """Today's dotted name of what an earlier version called `name`."""
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        now = MOVED_TARGETS.get(".".join(parts[:count]))
        if now is not None:
            return ".".join([now, *parts[count:]])
    return name


def with_current_targets(config: Any) -> Any:
    """A copy of a stored configuration (plain values) in which every `_target_` has today's name."""
    if isinstance(config, dict):
        return {
            key: current_target(value)
            if key == "_target_" and isinstance(value, str)
            else with_current_targets(value)
            for key, value in config.items()
        }
    return [with_current_targets(value) for value in config] if isinstance(config, list) else config


def refuse_command(old: str) -> NoReturn:
    """Ends an old spelling of a command with one line that says the new one."""
    print(f"error: {old} is now python -m rasr.tools {MOVED_COMMANDS[old]}", file=sys.stderr)  # noqa: T201
    sys.exit(2)
