"""RASRNet in the full shapes of SD-2.1-base, random weights: counts, sizes, invariants (6 GB, minutes)."""

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.sd21 import make_sd21_backbone
from rasr.inference import Restorer
from rasr.models import build_rasr_net, save_weights
from rasr.models.rasr_net import count_parameters
from tests.helpers import wake_zero_convs

pytestmark = pytest.mark.slow

RESIDUALS = [  # the 12 skips of a 512x512 image, encoder order
    *[(320, 64)] * 3,
    *[(320, 32), (640, 32), (640, 32)],
    *[(640, 16), (1280, 16), (1280, 16)],
    *[(1280, 8)] * 3,
]


@pytest.fixture(scope="module")
def net():
    return build_rasr_net(make_sd21_backbone()).eval()


def test_counts(net):
    """12.8 M trainable (paper); VAE, UNet and text encoder as published, and the branch's copy."""
    trainable, _ = count_parameters(net)
    assert trainable == 12_801_152
    parts = (net.backbone.vae, net.backbone.unet, net.backbone.text_encoder)
    vae, unet, text = (sum(p.numel() for p in part.parameters()) for part in parts)
    assert (vae, unet) == (83_653_863, 865_910_724)
    assert text > 300e6


def test_weight_file_is_small_and_complete(net, tmp_path):
    path = save_weights(net, tmp_path / "weights")
    assert 51.2e6 < path.stat().st_size < 51.5e6
    assert sum(tensor.numel() for tensor in load_file(path).values()) == 12_801_152


@torch.inference_mode()
def test_forward_512_with_image_latents_and_features(net):
    lq_up, ref = torch.rand(2, 1, 3, 512, 512).unbind(0)
    fresh = net(lq_up, ref, conditioning_scale=1.0)
    state = {name: p.clone() for name, p in net.fusion.named_parameters() if p.requires_grad}
    wake_zero_convs(net)
    z_ref = net.fusion.encode(ref)
    assert z_ref.shape == (1, 4, 64, 64) and z_ref.half().numel() * 2 == 32 * 1024
    features = net.fusion.features_from_latents(z_ref)
    sizes = [(t.shape[1], t.shape[2]) for t in features.down_block_res_samples]
    assert sizes == RESIDUALS and features.mid_block_res_sample.shape == (1, 1280, 8, 8)
    from_features = net(lq_up, features, conditioning_scale=0.5)
    assert from_features.shape == (1, 3, 512, 512) and torch.isfinite(from_features).all()
    assert not torch.equal(from_features, fresh)
    assert torch.equal(net(lq_up, ref, conditioning_scale=0.5), from_features)
    for name, parameter in net.fusion.named_parameters():
        if name in state:
            parameter.copy_(state[name])


@torch.inference_mode()
def test_fresh_branch_with_all_text_blocks_is_the_backbone_bit_for_bit(net):
    lq_up = torch.rand(1, 3, 256, 256)
    before, net.fusion.text_blocks = net.fusion.text_blocks, (0, 1, 2, 3)
    assert torch.equal(net(lq_up, lq_up.flip(-1), conditioning_scale=1.0), net.backbone(lq_up, [""]))
    net.fusion.text_blocks = before


def test_one_training_step_moves_what_it_should(net):
    """Gradients in every trainable tensor that can have one at the start, and in no frozen one."""
    lq_up, ref, gt = torch.rand(3, 1, 3, 128, 128).unbind(0)
    net.train()
    (net(lq_up, ref, conditioning_scale=1.0) - gt).square().mean().backward()
    assert all(p.grad is None for p in net.parameters() if not p.requires_grad)
    moved = [n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().max() > 0]
    # Blocks 0-2 take the residuals 3-11 and that of the mid block; those of block 3 are multiplied by 0.
    expected = [f"fusion.net.controlnet_down_blocks.{i}.weight" for i in range(3, 12)]
    assert {*expected, "fusion.net.controlnet_mid_block.weight"} <= set(moved)
    assert not any(f"controlnet_down_blocks.{i}." in name for name in moved for i in range(3))
    net.zero_grad()
    net.eval()


def test_restorer_at_process_size(net):
    """A small photograph is enlarged to the 512 that SD-2.1 wants, and comes back four times its own size."""
    sr = Restorer(net, process_size=512, device="cpu").restore(torch.rand(3, 40, 60))
    assert sr.shape == (3, 160, 240) and torch.isfinite(sr).all()
