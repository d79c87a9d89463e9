"""Makes one folder of a training's result, for others to load by its path or hub id.

    python scripts/make_pretrained.py --weights outputs/mine/weights.safetensors --output weights/mine
    python scripts/make_pretrained.py --weights outputs/mine/weights.safetensors --output weights/mine \
        --push-to-hub owner/name

The folder holds the backbone, the fusion and a model card, which you may edit: it stays as it is when the
command is run again. Several `--weights` over one backbone give one folder with several fusions. `infer.py
weights=weights/mine` and `RASRNet.from_pretrained` read it.
"""

import argparse
import logging
import sys
from pathlib import Path

import torch

from rasr.errors import RasrError
from rasr.models import RASRNet, load_rasr_net, upload_folder
from rasr.models.pretrained_folder import CARD_FILE, check_is_no_file
from rasr.pretrained import is_hub_id

log = logging.getLogger("make_pretrained")

DTYPES = ("float16", "bfloat16", "float32")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout, force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--weights",
        required=True,
        nargs="+",
        help="weight file or checkpoint of train.py, or a backbone's directory; several for several fusions",
    )
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--backbone", help="replaces the backbone that the weight file names")
    parser.add_argument("--dtype", choices=DTYPES, default=DTYPES[0], help="of the tensors; default float16")
    parser.add_argument("--push-to-hub", metavar="OWNER/NAME", help="also upload it, under this hub id")
    parser.add_argument("--private", action="store_true", help="of a new hub repository")
    args = parser.parse_args()
    try:
        check_is_no_file(args.output)  # before the weights are loaded
        if args.push_to_hub is not None and not is_hub_id(args.push_to_hub):
            raise RasrError(f"--push-to-hub {args.push_to_hub!r} is no hub id; give owner/name")
        card = args.output / CARD_FILE
        kept = " (it was there before: see that it still fits)" if card.exists() else ""
        nets = [load_rasr_net(weights, backbone=args.backbone, merge=False) for weights in args.weights]
        for weights, net in zip(args.weights[1:], nets[1:], strict=True):
            check_shares_backbone(net, nets[0], weights)
        dtype = getattr(torch, args.dtype)
        nets[0].save_pretrained(args.output, dtype=dtype)
        for net in nets[1:]:
            net.save_fusion(args.output, dtype=dtype)
        size = sum(file.stat().st_size for file in args.output.rglob("*") if file.is_file())
        log.info("%s: %.1f MB; its model card: %s%s", args.output, size / 1e6, card, kept)
        if args.push_to_hub:
            log.info("%s", upload_folder(args.output, args.push_to_hub, private=args.private or None))
    except RasrError as error:
        parser.exit(2, f"error: {error}\n")


def check_shares_backbone(net: RASRNet, first: RASRNet, weights: str) -> None:
    """Raises a RasrError unless a further net has a fusion over the first net's backbone."""
    if net.fusion is None:
        raise RasrError(f"--weights {weights} holds no fusion; give it first, or leave it out")
    if first.fusion is not None and first.fusion.name == net.fusion.name:
        raise RasrError(f"--weights {weights} holds a second fusion {net.fusion.name}; give one of each")
    ours, theirs = net.backbone.state_dict(), first.backbone.state_dict()
    if ours.keys() != theirs.keys() or not all(torch.equal(ours[name], theirs[name]) for name in ours):
        raise RasrError(
            f"--weights {weights} is over another backbone than the first; train it over that one"
        )


if __name__ == "__main__":
    main()
