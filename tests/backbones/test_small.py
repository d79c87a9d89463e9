"""The untrained `rasr-small`: what it starts from, and what it may weigh."""

import pytest
import torch
import torch.nn.functional as F

from rasr.backbones.small import start_as_enlargement
from rasr.backbones.tiny import start_near_identity
from rasr.models import build_rasr_net, make_small_backbone
from rasr.models.rasr_net import count_parameters

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def backbone():
    return make_small_backbone(seed=0)


@pytest.fixture(scope="module")
def lq_up():
    """Smooth coloured images (2, 3, 64, 96)."""
    colours = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    return F.interpolate(colours, (64, 96), mode="bicubic").clamp(0, 1)


def psnr(a, b):
    return -10 * (a - b).square().mean().log10().item()


def test_it_starts_as_an_enlargement(backbone, lq_up):
    assert psnr(backbone(lq_up, ["", ""]), lq_up) > 20
    assert psnr(backbone(1 - lq_up, ["", ""]), 1 - lq_up) > 20


def test_without_that_start_it_returns_something_else(lq_up):
    backbone = make_small_backbone(seed=0)
    for module in backbone.vae.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    start_near_identity(backbone.vae, backbone.unet)
    assert psnr(backbone(lq_up, ["", ""]), lq_up) < 16
    start_as_enlargement(backbone.vae, backbone.unet)
    assert psnr(backbone(lq_up, ["", ""]), lq_up) > 20


def test_every_tensor_learns(backbone, lq_up):
    backbone.make_trainable()
    backbone.unet.conv_out.weight.data.normal_(std=0.01)  # it starts at 0 and would hide the UNet
    backbone(lq_up, ["a", "b"]).square().mean().backward()
    idle = [name for name, p in backbone.named_parameters() if p.requires_grad and p.grad is None]
    assert idle == []


def test_the_same_seed_gives_the_same_weights(backbone):
    first, same, other = (make_small_backbone(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)


def test_with_its_branch_it_fits_25_megabytes_in_half_precision():
    net = build_rasr_net(make_small_backbone(), rank=16)
    branch, total = count_parameters(net)
    frozen_copy = sum(p.numel() for p in net.fusion.parameters()) - branch
    assert 2 * (total - frozen_copy) < 24 * MEGABYTE
