"""Small networks for the model tests."""

import pytest
import torch

from rasr.models import OneStepBackbone, RASRNet, build_rasr_net, make_tiny_backbone
from tests.helpers import wake_zero_convs


@pytest.fixture
def backbone() -> OneStepBackbone:
    return make_tiny_backbone(seed=0)


@pytest.fixture
def fresh_net(backbone: OneStepBackbone) -> RASRNet:
    """A net whose branch was never trained."""
    return build_rasr_net(backbone).eval()


@pytest.fixture
def trained_net(fresh_net: RASRNet) -> RASRNet:
    """A net whose branch has an effect."""
    wake_zero_convs(fresh_net)
    return fresh_net


@pytest.fixture
def images() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        "lq_up": torch.rand(2, 3, 64, 96, generator=generator),
        "ref": torch.rand(2, 3, 64, 96, generator=generator),
    }
