"""Writes the backbone between two others: (1 - weight) * FIRST + weight * SECOND, tensor by tensor.

    python scripts/interpolate_backbones.py outputs/a/weights outputs/b/weights --weight 0.5 --output mixed

ESRGAN's network interpolation (Wang et al. 2018, Section 3.4): of a net trained for PSNR and one that went on
from it for something else, it often keeps more of both than a training between them. The two must share their
architecture, and mean something only where the second was trained from the first or both from a third. Text
encoder, tokenizer and scheduler are those of FIRST.
"""

import argparse
import logging
import sys
from pathlib import Path

from torch import Tensor, nn

from rasr.data.arguments import parse
from rasr.errors import RasrError
from rasr.fusion.registry import fusion_files
from rasr.models import OneStepBackbone
from rasr.models.pretrained_folder import check_is_no_file

log = logging.getLogger("interpolate_backbones")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", help="diffusers directory or hub id")
    parser.add_argument("second", help="diffusers directory or hub id")
    parser.add_argument("--weight", type=float, required=True, help="of SECOND, 0 to 1")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    try:
        args = parse(parser)
        if not 0 <= args.weight <= 1:
            raise RasrError(f"--weight {args.weight}: give a number from 0 (FIRST) to 1 (SECOND)")
        check_is_no_file(args.output)
        if args.output.resolve() in (Path(args.first).resolve(), Path(args.second).resolve()):
            raise RasrError(f"--output {args.output} is one of the two; give another folder")
        first, second = (OneStepBackbone.from_pretrained(path) for path in (args.first, args.second))
        if first.osediff_weights != second.osediff_weights:
            raise RasrError(
                f"{args.first} and {args.second} hold other OSEDiff weights ({first.osediff_weights}, "
                f"{second.osediff_weights}); give two with the same ones or none"
            )
        for part in ("vae", "unet"):
            interpolate(
                getattr(first, part), getattr(second, part), args.weight, f"{args.second}: its {part}"
            )
        for file in fusion_files().values():
            (args.output / file).unlink(missing_ok=True)  # of another net, if any
        first.save_pretrained(args.output)
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")
    log.info("%s: %g of %s, %g of %s", args.output, 1 - args.weight, args.first, args.weight, args.second)


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


if __name__ == "__main__":
    main()
