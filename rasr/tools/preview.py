"""Draw a contact sheet of training samples, as train.py would see them."""

import logging
import math
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from rasr.data.settings import check_crop
from rasr.errors import RasrError
from rasr.image_io import atomic_path, to_uint8
from rasr.image_ops import resize_bicubic

COLUMNS = {"gt": "ground truth", "lq_up": "LQ, enlarged", "ref": "reference"}
GAP = 8  # pixels between the pictures and around them
TEXT_HEIGHT = 20  # pixels of a line of text
MIN_SIDE = 192  # pixels; smaller pictures are enlarged by a whole factor, so that their own pixels show

logger = logging.getLogger(__name__)


def main(cfg: DictConfig) -> None:
    check_crop(cfg.gt_size, cfg.scale)
    output = Path(str(cfg.output))
    if output.suffix.lower() != ".png":
        raise RasrError(f"output={output} is no PNG; give a name that ends in .png")
    datamodule = instantiate(cfg.data)
    datamodule.setup("fit")
    samples = degraded_samples(datamodule.train_dataloader(), instantiate(cfg.degradation))
    rows = list(islice(samples, cfg.rows))
    draw_sheet(rows, output)
    logger.info("%d samples, %s", len(rows), output)


def degraded_samples(batches: Iterable[dict[str, Any]], degradation: nn.Module) -> Iterator[dict[str, Any]]:
    """Yield the samples of the batches one by one, with `lq_up` (3, S, S) as the training module makes it."""
    for batch in batches:
        lq = degradation(batch["gt"], seeds=batch["seed"])
        batch = batch | {"lq_up": resize_bicubic(lq, tuple(batch["gt"].shape[-2:]))}
        for index in range(len(lq)):
            yield {name: batch[name][index] for name in (*COLUMNS, "sample_id", "prompt") if name in batch}


def draw_sheet(samples: list[dict[str, Any]], path: str | Path) -> None:
    """Draw one row per sample with its id and prompt below.

    Args:
        samples: hold some of COLUMNS, each (3, S, S) in [0, 1], `sample_id` and `prompt`.
        path: the PNG to write.
    """
    columns = [name for name in COLUMNS if name in samples[0]]
    own_side = samples[0][columns[0]].shape[-1]
    side = own_side * math.ceil(MIN_SIDE / own_side)
    row_height = side + TEXT_HEIGHT + GAP
    size = GAP + len(columns) * (side + GAP), TEXT_HEIGHT + len(samples) * row_height
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        left = GAP + column * (side + GAP)
        _write(draw, COLUMNS[name], left, 0, side)
        for row, sample in enumerate(samples):
            sheet.paste(_picture(sample[name], side), (left, TEXT_HEIGHT + row * row_height))
    for row, sample in enumerate(samples):
        text = ": ".join(part for part in (sample["sample_id"], sample["prompt"]) if part)
        _write(draw, text, GAP, TEXT_HEIGHT + row * row_height + side, size[0] - 2 * GAP)
    with atomic_path(path) as temporary:
        sheet.save(temporary, format="PNG")


def _picture(image: Tensor, side: int) -> Image.Image:
    return Image.fromarray(to_uint8(image)).resize((side, side), Image.Resampling.NEAREST)


def _write(draw: ImageDraw.ImageDraw, text: str, left: int, top: int, width: int) -> None:
    """Write a line of text; what does not fit is cut off."""
    font = ImageFont.load_default(size=13)
    while text and draw.textlength(text, font) > width:
        text = text[:-1]
    draw.text((left, top + TEXT_HEIGHT // 2), text, fill="black", font=font, anchor="lm")
