"""Pack a data set (manifest or folder) into shards for streaming: `data.train=SHARDS` reads them.

    python data/make_shards.py --source data/lsdir/images/manifest.csv --output shards/lsdir

The result may be copied to an object store as it is (s3://..., gs://...). Needs: pip install -e '.[shards]'.
"""

import argparse
import logging
from pathlib import Path

from rasr.data.arguments import number, parse, whole
from rasr.data.dataset import ReferenceDataset
from rasr.data.shards import write_shards
from rasr.errors import RasrError

log = logging.getLogger("make_shards")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--source", type=Path, required=True, help="manifest or folder")
    parser.add_argument("--split", default="train", help="rows of the manifest to take")
    parser.add_argument(
        "--neighbours", type=Path, help="Parquet file of references, in place of the manifest's"
    )
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument(
        "--min-side", type=whole(1), default=512, help="least height and width of an image, pixels"
    )
    parser.add_argument("--shard-megabytes", type=number(0.001), default=128, help="size of a chunk file")
    args = parse(parser)
    try:
        dataset = ReferenceDataset(
            args.source, split=args.split, neighbours=args.neighbours, gt_size=args.min_side, seed=0
        )
        count = write_shards(dataset, args.output, shard_bytes=int(args.shard_megabytes * 2**20))
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")
    log.info("%d samples in %s", count, args.output)


if __name__ == "__main__":
    main()
