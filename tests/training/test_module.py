"""RASRModule: what stops a step before it ruins the weights."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.losses import RestorationLoss
from rasr.models import build_backbone_net, build_rasr_net, make_tiny_backbone
from rasr.training import AutoencoderModule, BackboneModule, LatentModule, RASRModule


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


def gradients(net):
    """Largest gradient of VAE and of UNet; 0 where there is none."""
    parts = (net.backbone.vae, net.backbone.unet)
    return [
        max(0 if p.grad is None else p.grad.abs().max().item() for p in part.parameters()) for part in parts
    ]


def test_the_autoencoder_learns_from_clean_and_degraded_images(batch):
    net = build_backbone_net(make_tiny_backbone(seed=0), trainable=["vae"])
    module = quiet(AutoencoderModule(net, RestorationLoss({"mse": 1.0}), Quarter(), torch.optim.AdamW))
    loss = module.training_step(batch, 0)
    loss.backward()
    images = [batch["gt"], module.degrade(batch)["lq_up"]]
    with torch.no_grad():
        errors = [(net.backbone.decode(net.backbone.encode(x)) - x).square().mean() for x in images]
    torch.testing.assert_close(loss.detach(), sum(errors) / 2)
    vae, unet = gradients(net)
    assert vae > 0 and unet == 0
    torch.testing.assert_close((module(batch, 0.5) - batch["gt"]).square().mean(), errors[0])


def test_the_unet_learns_latents_of_a_frozen_vae(batch):
    net = build_backbone_net(make_tiny_backbone(seed=0), trainable=["unet"])
    module = quiet(LatentModule(net, RestorationLoss({"mse": 1.0}), Quarter(), torch.optim.AdamW))
    loss = module.training_step(batch, 0)
    loss.backward()
    with torch.no_grad():
        latents = net.backbone.encode(module.degrade(batch)["lq_up"])
        prompt_embeds = net.backbone.encode_prompt([""])
        noise = net.backbone.decode_unet(net.backbone.encode_unet(latents, prompt_embeds), prompt_embeds)
        wanted = (net.backbone.predict_x0(latents, noise) - net.backbone.encode(batch["gt"])).square().mean()
    torch.testing.assert_close(loss.detach(), wanted)
    vae, unet = gradients(net)
    assert vae == 0 and unet > 0


def test_only_vae_and_unet_can_learn():
    for parts in ([], ["text_encoder"]):
        with pytest.raises(RasrError, match=r"trainable=.*the parts that can learn are vae and unet"):
            build_backbone_net(make_tiny_backbone(seed=0), trainable=parts)
