"""Writes a random small backbone as a diffusers-format directory: for tests, and as a start to compare with.

python scripts/make_tiny.py outputs/tiny
"""

import argparse

from rasr.models import make_tiny_backbone


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", help="directory to write")
    parser.add_argument("--seed", type=int, default=0, help="seed of the weights")
    args = parser.parse_args()
    make_tiny_backbone(args.seed).save_pretrained(args.path)


if __name__ == "__main__":
    main()
