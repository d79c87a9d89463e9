"""Command lines of the scripts `data/<set>/prepare.py`: what all have in common, and checks of numbers."""

import argparse
import logging
import math
import os
from collections.abc import Callable
from pathlib import Path

from rasr.errors import RasrError


def run_script(
    parser: argparse.ArgumentParser, prepare: Callable[[argparse.Namespace], object], script: str
) -> None:
    """Add the arguments that all scripts have, check them and run; mistakes become one line.

    Args:
        parser: with the script's own arguments.
        prepare: the script's work.
        script: its `__file__`; the default output is the folder `images` beside it.
    """
    default = Path(script).resolve().parent / "images"
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    parser.add_argument("--input", type=Path, required=True, help="folder of the originals")
    parser.add_argument("--output", type=Path, default=default, help="folder to write to")
    parser.add_argument(
        "--workers", type=whole(0), default=os.cpu_count(), help="processes; 0 uses this one alone"
    )
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        args = parse(parser)
        check_folders(args.input, args.output)
        prepare(args)
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, "interrupted; run the same command again to go on\n")


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; a mistake is one line, without argparse's usage above it."""

    def fail(message: str) -> None:
        parser.exit(2, f"error: {message}; see --help\n")

    parser.error = fail
    return parser.parse_args()


def check_folders(source: Path, output: Path) -> None:
    """Raise a RasrError if there are no originals, or if one folder lies inside the other."""
    if not source.is_dir():
        raise RasrError(f"{source}: no such folder; give the set's own as --input")
    originals, written = source.resolve(), output.resolve()
    if written.is_relative_to(originals):
        raise RasrError(f"--output {output} lies inside the originals; give another folder")
    if originals.is_relative_to(written):
        raise RasrError(f"--input {source} lies inside --output {output}; give another folder to write to")


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return an argparse type: a whole number in this range."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or value < least or (most is not None and value > most):
            limits = f"of at least {least}" if most is None else f"from {least} to {most}"
            raise argparse.ArgumentTypeError(f"{text} is not a whole number {limits}")
        return value

    return read


def number(least: float) -> Callable[[str], float]:
    """Return an argparse type: a finite number of at least this."""

    def read(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not a number of at least {least:g}")
        return value

    return read
