"""Small restoration models for the chain tests."""

import pytest
import torch
from diffusers import ControlNetModel

from rasr.models import build_rasr_net, make_tiny_backbone
from rasr.refir import MultiStepChain
from tests.helpers import wake_zero_convs
from tests.refir.unets import wake


def make_multi_step(**settings) -> MultiStepChain:
    """A random ControlNet restorer with the parts of the tiny backbone, in SD's layout."""
    backbone = make_tiny_backbone(seed=3)
    wake(backbone.unet, seed=4)
    # One stride-2 convolution, as the tiny VAE shrinks by 2.
    controlnet = ControlNetModel.from_unet(backbone.unet, conditioning_embedding_out_channels=(8, 8))
    wake(controlnet, seed=5)
    parts = (backbone.vae, backbone.unet, controlnet, backbone.text_encoder, backbone.tokenizer)
    return MultiStepChain(
        *parts, backbone.noise_scheduler, **{"n_steps": 5, "guidance_scale": 2.0} | settings
    )


@pytest.fixture(scope="session")
def net():
    """A RASRNet whose backbone and branch all matter."""
    backbone = make_tiny_backbone(seed=0)
    wake(backbone.unet, seed=1)
    net = build_rasr_net(backbone)
    wake_zero_convs(net)
    return net.eval()


@pytest.fixture
def pictures() -> dict[str, torch.Tensor]:
    """Photograph (3, 12, 16) and references of other sizes."""
    generator = torch.Generator().manual_seed(7)
    sizes = {"lq": (12, 16), "ref": (70, 45), "other": (64, 64)}
    return {name: torch.rand(3, *size, generator=generator) for name, size in sizes.items()}
