"""RASRModule: what stops a step before it ruins the weights."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.losses import RestorationLoss
from rasr.models import build_backbone_net, build_rasr_net, make_tiny_backbone
from rasr.training import BackboneModule, RASRModule


class BrokenDiscriminator(torch.nn.Module):
    """Judges real images as nan, and only those."""

    def __init__(self, gt: torch.Tensor) -> None:
        super().__init__()
        self.gt = gt

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [images.mean((1, 2, 3)) * (float("nan") if torch.equal(images, self.gt) else 1.0)]


@pytest.fixture
def batch() -> dict:
    gt = torch.rand(1, 3, 32, 32)
    return {"gt": gt, "ref": gt.flip(-1), "prompt": [""], "sample_id": ["a.png"], "seed": torch.zeros(1)}


class Quarter(torch.nn.Module):
    def forward(self, gt: torch.Tensor, seeds: torch.Tensor) -> torch.Tensor:
        return gt[..., ::4, ::4]


def quiet(module):
    """A module that can be stepped without a Trainer."""
    module.log = lambda *args, **kwargs: None
    return module


def test_a_broken_discriminator_stops_the_step(batch):
    loss = RestorationLoss({"mse": 1.0, "gan": 0.1})
    net = build_rasr_net(make_tiny_backbone(seed=0))
    module = RASRModule(
        net, loss, Quarter(), torch.optim.AdamW, discriminator=BrokenDiscriminator(batch["gt"])
    )
    with pytest.raises(RasrError, match=r"the loss is nan at step 0 on a\.png"):
        quiet(module).training_step(batch, 0)


def test_a_broken_autoencoding_stops_the_step(batch):
    class Loss(RestorationLoss):
        def forward(self, sr, gt):
            terms = super().forward(sr, gt)
            self.calls = getattr(self, "calls", 0) + 1
            return terms if self.calls == 1 else {name: term * float("nan") for name, term in terms.items()}

    net = build_backbone_net(make_tiny_backbone(seed=0))
    module = BackboneModule(net, Loss({"mse": 1.0}), Quarter(), torch.optim.AdamW)
    with pytest.raises(RasrError, match=r"the loss is nan at step 0 on a\.png"):
        quiet(module).training_step(batch, 0)
