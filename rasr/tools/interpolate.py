"""Write the backbone between two others: ESRGAN's network interpolation."""

import logging
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor, nn

from rasr.errors import RasrError
from rasr.fusion.registry import fusion_files
from rasr.models import OneStepBackbone
from rasr.models.pretrained_folder import check_is_no_file

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    names, weight, output = [str(cfg.first), str(cfg.second)], cfg.weight, Path(str(cfg.output))
    check_is_no_file(output)
    if output.resolve() in [Path(name).resolve() for name in names]:
        raise RasrError(f"output={output} is one of the two; give another folder")
    first, second = map(OneStepBackbone.from_pretrained, names)
    if first.osediff_weights != second.osediff_weights:
        raise RasrError(
            f"{names[0]} and {names[1]} hold other OSEDiff weights ({first.osediff_weights}, "
            f"{second.osediff_weights}); give two with the same ones or none"
        )
    for part in ("vae", "unet"):
        interpolate(getattr(first, part), getattr(second, part), weight, f"{names[1]}: its {part}")
    for file in fusion_files().values():
        (output / file).unlink(missing_ok=True)  # of another net, if any
    first.save_pretrained(output)
    logger.info("%s: %g of %s, %g of %s", output, 1 - weight, names[0], weight, names[1])


def interpolate(first: nn.Module, second: nn.Module, weight: float, name: str) -> None:
    """Moves the tensors of `first` towards those of `second`, in place; `name` is for the error message."""
    ours, theirs = (
        {key: value for key, value in net.config.items() if not key.startswith("_")}
        for net in (first, second)
    )
    differing = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if differing:
        raise RasrError(f"{name} is built otherwise ({differing[0]}); give two of one architecture")
    ours, theirs = first.state_dict(), second.state_dict()
    first.load_state_dict({key: mix(tensor, theirs[key], weight) for key, tensor in ours.items()})


def mix(a: Tensor, b: Tensor, weight: float) -> Tensor:
    return (1 - weight) * a + weight * b if a.is_floating_point() else a
