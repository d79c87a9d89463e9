"""SeeSR's UNet and ControlNet from their own files, without SeeSR's code.

Beside every text transformer `attentions[j]` they have `image_attentions[j]`, a transformer of the same shape
that attends to image features of width 512 and runs right after it. diffusers has no such block, so the extra
transformers are added to a stock network and run by hooks. What cannot be had here is the network that makes
these features: DAPE, a RAM tagger (Swin-L at 384 pixels, 145 tokens) fine-tuned by SeeSR, whose weights and
code are its own; whoever has it gives it as `image_embedder` (`rasr.refir.multi_step`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from diffusers import ControlNetModel, Transformer2DModel, UNet2DConditionModel
from torch import Tensor, nn

from rasr.errors import RasrError
from rasr.pretrained import read_tensors

USE_KEY, DIM_KEY = "use_image_cross_attention", "image_cross_attention_dim"
WEIGHT_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

Net = TypeVar("Net", UNet2DConditionModel, ControlNetModel)


class ImageAttention:
    """The image transformers that were added to a network, and the features which they look at.

    Args:
        net: UNet or ControlNet; gets a list `image_attentions` in every block with transformers.
        dim: width of the image features.
    """

    def __init__(self, net: UNet2DConditionModel | ControlNetModel, dim: int = 512) -> None:
        self.embeds: Tensor | None = None
        for block in [*net.down_blocks, net.mid_block, *getattr(net, "up_blocks", ())]:
            texts = getattr(block, "attentions", None)
            if not texts or not isinstance(texts[0], Transformer2DModel):
                continue
            block.image_attentions = nn.ModuleList(_like(text, cross_attention_dim=dim) for text in texts)
            for text, image in zip(texts, block.image_attentions, strict=True):
                self._run_after(text, image)

    @contextmanager
    def looking_at(self, embeds: Tensor | None) -> Iterator[None]:
        """Calls of the network inside attend to `embeds`, (B, tokens, dim)."""
        self.embeds = embeds
        try:
            yield
        finally:
            self.embeds = None

    def _run_after(self, text: nn.Module, image: nn.Module) -> None:
        def hook(module: nn.Module, args: tuple, output: tuple[Tensor]) -> tuple[Tensor]:
            if self.embeds is None:
                raise RasrError(
                    "this network attends to image features, but there are none; give an image_embedder "
                    "(SeeSR's DAPE)"
                )
            return image(output[0], encoder_hidden_states=self.embeds, return_dict=False)

        text.register_forward_hook(hook)


def _like(transformer: Transformer2DModel, **changes: int) -> Transformer2DModel:
    # Not from_config: it takes what blocks pass by position for defaults and drops it.
    config = {k: v for k, v in transformer.config.items() if not k.startswith("_")}
    return Transformer2DModel(**config | changes)


def has_image_attention(path: str | Path) -> bool:
    """Whether the network in that directory is of SeeSR's kind."""
    file = Path(path) / "config.json"
    return file.is_file() and bool(json.loads(file.read_text()).get(USE_KEY))


def load_with_image_attention(cls: type[Net], path: str | Path) -> tuple[Net, ImageAttention]:
    """Reads SeeSR's `unet/` or `controlnet/` directory.

    Args:
        cls: UNet2DConditionModel or ControlNetModel.
        path: directory with `config.json` and the weights.

    Raises:
        RasrError: a file is missing, or its tensors are not those of such a network.
    """
    path = Path(path)
    config = json.loads((path / "config.json").read_text())
    net = cls.from_config({k: v for k, v in config.items() if k not in (USE_KEY, DIM_KEY)})
    attention = ImageAttention(net, config.get(DIM_KEY, 512))
    file = next((path / name for name in WEIGHT_FILES if (path / name).is_file()), path / WEIGHT_FILES[0])
    tensors = read_tensors(file, key="weights")
    wrong = net.load_state_dict(tensors, strict=False)
    if wrong.missing_keys or wrong.unexpected_keys:
        raise RasrError(
            f"{file} does not fit its config: {len(wrong.missing_keys)} tensors missing, "
            f"{len(wrong.unexpected_keys)} unexpected, first "
            f"{(wrong.missing_keys + wrong.unexpected_keys)[0]}; copy the directory again"
        )
    return net.requires_grad_(False).eval(), attention
