"""RASRNet: strength 0, no reference and a frozen backbone, and the behaviour of the one forward."""

import pytest
import torch
import torch.nn.functional as F

from rasr.backbones.lora import trainable_parameters
from rasr.models import RASRNet, build_rasr_net, make_tiny_backbone
from tests.helpers import wake_zero_convs

PROMPT = ["a cat", "a dog"]


def test_fresh_branch_with_all_text_blocks_equals_the_backbone_bit_for_bit(backbone, images):
    net = build_rasr_net(backbone, text_blocks=(0, 1, 2, 3)).eval()
    with_ref = net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=1.0)
    assert torch.equal(with_ref, backbone(images["lq_up"], PROMPT))


def test_scale_zero_with_all_text_blocks_equals_the_backbone_bit_for_bit(backbone, images):
    net = build_rasr_net(backbone, text_blocks=(0, 1, 2, 3)).eval()
    wake_zero_convs(net)
    expected = backbone(images["lq_up"], PROMPT)
    assert torch.equal(net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=0.0), expected)
    assert not torch.equal(
        net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=0.5), expected
    )


def test_scale_zero_is_the_backbone_with_its_text(trained_net, images):
    """The number 0 asks for no reference; a tensor's 0 is one strength of many, with text in block 3 only."""
    net, backbone = trained_net, trained_net.backbone
    out = net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=0.0)
    assert torch.equal(out, backbone(images["lq_up"], PROMPT))
    out = net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=torch.zeros(2, 1, 1, 1))
    assert not torch.equal(out, backbone(images["lq_up"], PROMPT))
    latents, embeds = backbone.encode(images["lq_up"]), backbone.encode_prompt(PROMPT)
    noise_pred = backbone.decode_unet(backbone.encode_unet(latents, embeds), embeds, (3,))
    assert torch.equal(out, backbone.decode(backbone.predict_x0(latents, noise_pred)))


def test_no_reference_is_the_backbone(trained_net, images):
    sr = trained_net(images["lq_up"], None, prompt=PROMPT)
    assert torch.equal(sr, trained_net.backbone(images["lq_up"], PROMPT))


def test_reference_and_its_scale_matter(trained_net, images):
    half = trained_net(images["lq_up"], images["ref"])
    assert torch.equal(half, trained_net(images["lq_up"], images["ref"], conditioning_scale=0.5))
    assert not torch.equal(half, trained_net(images["lq_up"], images["ref"], conditioning_scale=1.0))
    assert not torch.equal(half, trained_net(images["lq_up"], images["ref"].flip(-1)))


def test_scale_per_sample(trained_net, images):
    scale = torch.tensor([0.0, 1.0]).view(2, 1, 1, 1)
    mixed = trained_net(images["lq_up"], images["ref"], conditioning_scale=scale)
    for i, w in enumerate((0.0, 1.0)):
        alone = trained_net(images["lq_up"], images["ref"], conditioning_scale=torch.full((2, 1, 1, 1), w))
        torch.testing.assert_close(mixed[i], alone[i])


@pytest.mark.parametrize("block", [0, 1, 2, 3])
def test_block_weights_inject_where_they_say(block, images):
    """Only the residuals of the named block (12 skips, 3 a block, from the end) and the mid residual act."""
    weights = [0.0] * 4
    weights[block] = 1.0
    net = build_rasr_net(make_tiny_backbone(seed=0), block_weights=weights).eval()
    wake_zero_convs(net)
    encoded = net.backbone.encode_unet(
        net.backbone.encode(images["lq_up"]), net.backbone.encode_prompt(PROMPT)
    )
    injected = net.fusion.inject(net.backbone, encoded, [net.fusion.features(images["ref"])], 1.0)
    changed = [i for i in range(12) if not torch.equal(encoded.skips[i], injected.skips[i])]
    assert changed == list(range(9 - 3 * block, 12 - 3 * block))
    assert torch.equal(encoded.hidden_states, injected.hidden_states) == (block != 0)


def test_default_injects_into_blocks_0_1_2_only(trained_net, images):
    net = trained_net
    encoded = net.backbone.encode_unet(
        net.backbone.encode(images["lq_up"]), net.backbone.encode_prompt(PROMPT)
    )
    injected = net.fusion.inject(net.backbone, encoded, [net.fusion.features(images["ref"])], 1.0)
    changed = [i for i in range(12) if not torch.equal(encoded.skips[i], injected.skips[i])]
    assert changed == list(range(3, 12))


def test_reference_of_another_size(trained_net, images):
    sr = trained_net(images["lq_up"], images["ref"][..., :64, :64])
    assert sr.shape == images["lq_up"].shape


def test_wrong_settings_are_named(backbone):
    with pytest.raises(ValueError, match="decoder of 4 blocks"):
        build_rasr_net(backbone, block_weights=(1.0,))
    with pytest.raises(ValueError, match="text_blocks"):
        build_rasr_net(backbone, text_blocks=(4,))
    with pytest.raises(ValueError, match="no reference fusion"):
        RASRNet(backbone)(torch.rand(1, 3, 32, 32), torch.rand(1, 3, 32, 32))


def test_training_loop_of_fifteen_lines(backbone, images):
    """Plain PyTorch: zero-convolutions learn first, LoRA wakes at step two, frozen tensors never move."""
    net = build_rasr_net(backbone).train()
    frozen = {n: p.clone() for n, p in net.named_parameters() if not p.requires_grad}
    start = {n: p.detach().clone() for n, p in trainable_parameters(net).items()}
    optimizer = torch.optim.AdamW(trainable_parameters(net).values(), lr=1e-2)
    lora_gradients = []
    for _ in range(3):
        sr = net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=1.0)
        loss = F.mse_loss(sr, images["ref"])
        optimizer.zero_grad()
        loss.backward()
        missing = [n for n, p in trainable_parameters(net).items() if p.grad is None]
        assert not missing, f"no gradient, which plain DDP does not allow: {missing}"
        lora_gradients.append(
            sum(p.grad.abs().sum().item() for n, p in trainable_parameters(net).items() if "lora" in n)
        )
        optimizer.step()
    assert lora_gradients[0] == 0
    assert min(lora_gradients[1:]) > 0
    assert all(torch.equal(p, frozen[n]) for n, p in net.named_parameters() if n in frozen)
    assert any(not torch.equal(p, start[n]) for n, p in trainable_parameters(net).items() if "lora_B" in n)


def test_frozen_backbone_stays_in_evaluation_mode(fresh_net):
    fresh_net.train()
    assert fresh_net.training and not fresh_net.backbone.unet.training


def test_no_graph_before_the_decoder(fresh_net, images):
    net = fresh_net.train()
    latents = net.backbone.encode(images["lq_up"])
    encoded = net.backbone.encode_unet(latents, net.backbone.encode_prompt(PROMPT))
    assert not latents.requires_grad
    assert not any(s.requires_grad for s in encoded.skips)
    assert not net.fusion.encode(images["ref"]).requires_grad
