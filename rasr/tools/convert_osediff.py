"""Converts OSEDiff's `osediff.pkl` to safetensors, which holds nothing that could be run.

    python scripts/convert_osediff.py osediff.pkl osediff.safetensors

Prints the SHA-256 of both files and how many parameters they hold. Both serve as `osediff_weights`.
"""

import argparse
import logging
import sys
from pathlib import Path

from rasr.errors import RasrError
from rasr.image_io import content_hash
from rasr.models.osediff_weights import OSEDiffWeights, read_osediff, save_osediff

log = logging.getLogger("convert_osediff")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="osediff.pkl")
    parser.add_argument("target", type=Path, help="file to write, ending in .safetensors")
    args = parser.parse_args()
    try:
        if args.source.resolve() == args.target.resolve():
            raise RasrError(f"{args.target} is both source and target; give another name for the target")
        weights = read_osediff(args.source)
        save_osediff(weights, args.target)
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")
    for path in (args.source, args.target):
        log.info("%s  %s", content_hash(path), path)
    for name, count in count_parameters(weights).items():
        log.info("%s: %s parameters", name, f"{count:,}")


def count_parameters(weights: OSEDiffWeights) -> dict[str, int]:
    """Parameters of each part of the file."""
    counts = {"UNet LoRA": 0, "UNet conv_in": 0, "VAE LoRA": 0}
    for name, tensor in weights.state_dict_unet.items():
        counts["UNet LoRA" if "lora" in name else "UNet conv_in"] += tensor.numel()
    counts["VAE LoRA"] = sum(tensor.numel() for tensor in weights.state_dict_vae.values())
    return counts | {"all": sum(counts.values())}


if __name__ == "__main__":
    main()
