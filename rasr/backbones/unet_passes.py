"""An SD-style UNet in two halves, written out: `run_encoder` (down, mid blocks), `run_decoder` (up blocks).

The RASR paper treats them differently: the encoder runs without a graph and is copied into the reference
branch, the decoder receives the reference residuals and has text switched off in its first blocks (rasr
paper, Eq. 2 and 6). `diffusers.UNet2DConditionModel.forward` offers neither, so its phases are repeated here;
a test holds both halves together against the original forward. Only plain text-conditioned UNets are
supported (SD-1.x, SD-2.x, SD-Turbo): no class labels, no added embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from torch import Tensor

from rasr.errors import RasrError


@dataclass
class EncoderOutput:
    """What a UNet encoder hands to the decoder."""

    hidden_states: Tensor
    """(B, C, h / 2**(n-1), w / 2**(n-1)): the mid block's output."""
    skips: tuple[Tensor, ...]
    """`conv_in` and every down-block output in execution order (12 tensors on SD-2.1)."""
    temb: Tensor
    """(B, 4 * C0): time embedding, needed again by the decoder."""


class TextCrossAttnProcessor:
    """Text cross-attention that contributes nothing when it is given no text.

    diffusers turns a cross-attention without `encoder_hidden_states` into a self-attention; the paper's
    decoder blocks 0-2 have *no* text modulation instead. Holds no state: what a block gets is decided by the
    caller, per call.
    """

    def __init__(self, inner) -> None:
        self.inner = inner

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None):
        if encoder_hidden_states is None:
            return torch.zeros_like(hidden_states)
        return self.inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


def install_text_gate(net: UNet2DConditionModel | ControlNetModel) -> None:
    """Wraps the processor of every text cross-attention (`attn2`) of `net`, once."""
    for name, module in net.named_modules():
        if name.endswith(".attn2") and not isinstance(module.processor, TextCrossAttnProcessor):
            module.set_processor(TextCrossAttnProcessor(module.processor))


def check_supported(unet: UNet2DConditionModel) -> None:
    """Raises for UNets whose forward has phases that the two halves here do not have."""
    for key in ("class_embed_type", "num_class_embeds", "addition_embed_type", "encoder_hid_dim_type"):
        if unet.config.get(key) is not None:
            raise RasrError(
                f"this UNet has {key}={unet.config[key]!r}, which is not a plain text-conditioned SD UNet; "
                "use SD-1.x, SD-2.x or SD-Turbo weights"
            )
    if unet.config.get("center_input_sample") or unet.config.get("time_embedding_act_fn") is not None:
        raise RasrError(
            "this UNet centres its input or activates its time embedding; use SD-2.1-like weights"
        )


def run_encoder(
    net: UNet2DConditionModel | ControlNetModel, sample: Tensor, timestep: int, prompt_embeds: Tensor | None
) -> EncoderOutput:
    """conv_in, time embedding, down blocks, mid block of a UNet or a ControlNet copy of one.

    Args:
        net: the network; both classes name these parts alike.
        sample: (B, C, h, w) latents (already times the scaling factor).
        timestep: diffusion step, the same for the whole batch.
        prompt_embeds: (B, 77, D) or None, which skips text cross-attention (`install_text_gate` needed).
    """
    # 1. time
    timesteps = torch.full((sample.shape[0],), timestep, device=sample.device, dtype=torch.long)
    temb = net.time_embedding(net.time_proj(timesteps).to(sample.dtype))

    # 2. pre-process
    sample = net.conv_in(sample)

    # 3. down
    skips = (sample,)
    for block in net.down_blocks:
        if getattr(block, "has_cross_attention", False):
            sample, block_skips = block(hidden_states=sample, temb=temb, encoder_hidden_states=prompt_embeds)
        else:
            sample, block_skips = block(hidden_states=sample, temb=temb)
        skips += block_skips

    # 4. mid
    if getattr(net.mid_block, "has_cross_attention", False):
        sample = net.mid_block(sample, temb, encoder_hidden_states=prompt_embeds)
    else:
        sample = net.mid_block(sample, temb)
    return EncoderOutput(sample, skips, temb)


def run_decoder(
    unet: UNet2DConditionModel,
    encoded: EncoderOutput,
    prompt_embeds: Tensor,
    text_blocks: Sequence[int] | None = None,
    features: list[Tensor] | None = None,
) -> Tensor:
    """Up blocks and output convolution.

    Args:
        unet: the network that made (or whose copy made) `encoded`.
        encoded: output of `run_encoder`, with any residuals already added.
        prompt_embeds: (B, 77, D).
        text_blocks: decoder blocks in which text cross-attention is applied; None means all.
        features: gets the output of every block appended, coarsest first.

    Returns:
        (B, C, h, w) noise prediction.
    """
    sample, skips = encoded.hidden_states, encoded.skips
    for i, block in enumerate(unet.up_blocks):
        n_skips = len(block.resnets)
        block_skips, skips = skips[-n_skips:], skips[:-n_skips]
        if getattr(block, "has_cross_attention", False):
            text = prompt_embeds if text_blocks is None or i in text_blocks else None
            sample = block(
                hidden_states=sample,
                temb=encoded.temb,
                res_hidden_states_tuple=block_skips,
                encoder_hidden_states=text,
            )
        else:
            sample = block(hidden_states=sample, temb=encoded.temb, res_hidden_states_tuple=block_skips)
        if features is not None:
            features.append(sample)
    return unet.conv_out(unet.conv_act(unet.conv_norm_out(sample)))
