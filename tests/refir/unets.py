"""Small UNets with awake random weights: their attentions all matter, so that a wrong one shows."""

import torch
from diffusers import UNet2DConditionModel

STOCK = {
    "sample_size": 16,
    "block_out_channels": (32, 32, 64, 64),
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
    "layers_per_block": 2,
    "cross_attention_dim": 24,
    "attention_head_dim": (2, 2, 4, 4),
    "use_linear_projection": True,
    "norm_num_groups": 8,
}
"""SD-2.1's layout; with two transformer layers per block it has as many attentions as SeeSR's UNet."""


def wake(net: torch.nn.Module, seed: int = 0) -> torch.nn.Module:
    """Random weights of unit gain, norms near identity."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(net.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim > 1:
            parameter.data.copy_(noise / parameter[0].numel() ** 0.5)
        else:
            parameter.data.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
    return net.requires_grad_(False).eval()


def stock_unet(layers: int = 1, seed: int = 0) -> UNet2DConditionModel:
    """An SD-2.1-shaped UNet with `layers` transformer layers per block."""
    return wake(UNet2DConditionModel(**STOCK, transformer_layers_per_block=layers), seed)


def inputs(rows: int, size: tuple[int, int] = (16, 16), seed: int = 1) -> dict[str, torch.Tensor]:
    """Keyword arguments of one call of `stock_unet`."""
    generator = torch.Generator().manual_seed(seed)
    return {
        "sample": torch.randn(rows, 4, *size, generator=generator),
        "timestep": 300,
        "encoder_hidden_states": torch.randn(rows, 7, 24, generator=generator),
    }


def rows_of(arguments: dict, rows: list[int]) -> dict:
    """The same call for some rows of the batch."""
    return {k: v[rows] if isinstance(v, torch.Tensor) else v for k, v in arguments.items()}
