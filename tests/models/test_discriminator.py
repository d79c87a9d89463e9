"""DinoDiscriminator: the specified shapes, a backbone that never changes, heads that are bounded."""

import pytest
import timm
import torch
from hydra.utils import instantiate
from timm.models import VisionTransformer

from rasr.errors import RasrError
from rasr.losses import discriminator_loss, generator_loss
from rasr.models import DinoDiscriminator


def make_vit(depth: int = 3) -> VisionTransformer:
    return VisionTransformer(img_size=32, patch_size=8, embed_dim=16, depth=depth, num_heads=2, num_classes=0)


@pytest.fixture
def discriminator() -> DinoDiscriminator:
    return DinoDiscriminator(make_vit(), blocks=(1, 2), width=8, augment=False)


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(2, 3, 40, 48)


def test_shapes_and_size_at_vit_b16(images):
    with torch.device("meta"):
        vit = timm.create_model("vit_base_patch16_224.dino")
    discriminator = DinoDiscriminator(vit.to_empty(device="cpu"))
    logits = discriminator(images[:1])
    assert [tuple(level.shape) for level in logits] == [(1, 1, 3, 3), (1, 1, 3, 3), (1, 1)]
    trainable = sum(p.numel() for p in discriminator.parameters() if p.requires_grad)
    map_head, token_head = (768 * 9 + 1) * 128 + 129, 769 * 128 + 129
    assert trainable == 2 * map_head + token_head


def test_heads_see_the_normed_tokens_of_the_named_blocks(discriminator, images):
    """The same features by timm's own pieces, step by step."""
    vit, seen = discriminator.vit, []
    for head in discriminator.heads:
        head.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    discriminator(images)
    resized = torch.nn.functional.adaptive_avg_pool2d(images, 32)
    mean, std = (
        torch.tensor(values).view(3, 1, 1)
        for values in (timm.data.IMAGENET_DEFAULT_MEAN, timm.data.IMAGENET_DEFAULT_STD)
    )
    x = vit._pos_embed(vit.patch_embed((resized - mean) / std))
    for block, found in zip(vit.blocks[:2], seen[:2], strict=True):
        x = block(x)
        expected = vit.norm(x)[:, 1:].transpose(1, 2).reshape(2, 16, 4, 4)
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(seen[2], vit.norm(vit.blocks[2](x))[:, 0])


def test_backbone_stays_frozen_whatever_it_is_told(discriminator):
    for _ in range(2):
        discriminator.train().requires_grad_(True)
        torch.nn.Sequential(discriminator).train()
        assert not any(module.training for module in discriminator.vit.modules())
        assert not any(parameter.requires_grad for parameter in discriminator.vit.parameters())
        assert all(parameter.requires_grad for parameter in discriminator.heads.parameters())
        assert all(module.training for module in discriminator.heads.modules())
    discriminator.eval().requires_grad_(False)
    assert not any(module.training for module in discriminator.modules())
    assert not any(parameter.requires_grad for parameter in discriminator.parameters())


def test_only_the_heads_learn(discriminator, images):
    before = {name: tensor.clone() for name, tensor in discriminator.vit.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in discriminator.parameters() if p.requires_grad], lr=0.1)
    heads = [p.clone() for p in discriminator.heads.parameters()]
    sum(level.square().mean() for level in discriminator(images)).backward()
    optimizer.step()
    assert all(torch.equal(before[name], tensor) for name, tensor in discriminator.vit.state_dict().items())
    pairs = zip(heads, discriminator.heads.parameters(), strict=True)
    assert all(not torch.equal(old, new) for old, new in pairs)


def test_gradient_reaches_the_image_while_the_heads_are_frozen(discriminator, images):
    """What the generator's phase does: every level has its own say."""
    discriminator.requires_grad_(False)
    images.requires_grad_()
    for level in discriminator(images):
        (gradient,) = torch.autograd.grad(level.sum(), images, retain_graph=True)
        assert torch.isfinite(gradient).all() and (gradient != 0).all(dim=1).any()
    assert all(p.grad is None for p in discriminator.parameters())


@pytest.mark.parametrize("augment", [False, True])
def test_gradient_against_finite_differences(augment):
    discriminator = DinoDiscriminator(make_vit(depth=2), blocks=(1,), width=4, augment=augment)
    discriminator = discriminator.double().eval()  # in training the power iteration moves at every call
    images = torch.rand(1, 3, 8, 8, dtype=torch.float64, requires_grad=True)

    def function(x):
        torch.manual_seed(0)
        return tuple(discriminator(x))

    assert torch.autograd.gradcheck(function, images, atol=1e-8, rtol=1e-4)


@pytest.mark.parametrize("is_training", [True, False])
def test_one_backward_serves_both_players(discriminator, images, is_training):
    """Both losses summed: the heads get the discriminator's gradient only, the image the generator's."""
    discriminator.train(is_training)
    sr, gt = images.clone().requires_grad_(), torch.rand_like(images)

    def generator_phase():
        discriminator.requires_grad_(False)
        logits = discriminator(sr)
        discriminator.requires_grad_(True)
        return generator_loss(logits)

    def discriminator_phase():
        return discriminator_loss(discriminator(gt), discriminator(sr.detach()))

    (generator_phase() + discriminator_phase()).backward()
    assert all(p.grad is not None for p in discriminator.heads.parameters())
    if is_training:  # the power iteration has moved on: nothing to compare with
        return
    (expected,) = torch.autograd.grad(generator_phase(), sr)
    torch.testing.assert_close(sr.grad, expected)
    heads = list(discriminator.heads.parameters())
    for parameter, gradient in zip(heads, torch.autograd.grad(discriminator_phase(), heads), strict=True):
        torch.testing.assert_close(parameter.grad, gradient)


def test_spectral_norm_bounds_every_layer_of_the_heads(discriminator, images):
    layers = [m for m in discriminator.heads.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert len(layers) == 6
    with torch.no_grad():
        for layer in layers:
            layer.parametrizations.weight.original.mul_(50)
    for _ in range(50):
        discriminator(images)
    for layer in layers:
        norm = torch.linalg.matrix_norm(layer.weight.flatten(1), ord=2)
        assert norm.item() == pytest.approx(1, abs=0.02)


def test_mixed_precision_keeps_the_heads_in_float32(discriminator, images):
    expected = discriminator.eval()(images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = discriminator.train()(images)
    discriminator.vit.bfloat16()
    half = discriminator.eval()(images)
    for level, others in zip(expected, zip(mixed, half, strict=True), strict=True):
        for other in others:
            assert other.dtype == torch.float32
            torch.testing.assert_close(other, level, atol=0.1, rtol=0.1)


def test_heads_state_continues_exactly(discriminator, images):
    """`heads.state_dict()` is all that training changes, the power iteration's buffers included."""
    other = DinoDiscriminator(make_vit(), blocks=(1, 2), width=8, augment=False)
    other.vit.load_state_dict(discriminator.vit.state_dict())
    discriminator(images)
    other.heads.load_state_dict(discriminator.heads.state_dict())
    for _ in range(2):
        found, expected = other(images), discriminator(images)
        assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_augmentation_is_drawn_anew_and_reproducible(images):
    discriminator = DinoDiscriminator(make_vit(), blocks=(1,), width=8).eval()
    torch.manual_seed(1)
    first = discriminator(images)
    assert not torch.equal(discriminator(images)[0], first[0])
    torch.manual_seed(1)
    assert torch.equal(discriminator(images)[0], first[0])
    discriminator.augment = False
    assert torch.equal(discriminator(images)[0], discriminator(images)[0])


def test_blocks_and_width_change_the_heads(images):
    logits = DinoDiscriminator(make_vit(), blocks=(3,), width=8)(images)
    assert len(logits) == 2
    narrow, wide = (DinoDiscriminator(make_vit(), blocks=(1,), width=width) for width in (8, 16))
    counts = [sum(p.numel() for p in d.heads.parameters()) for d in (narrow, wide)]
    assert counts[0] < counts[1]


def test_impossible_choices_are_named():
    for blocks in ((0,), (2, 4), ()):
        with pytest.raises(RasrError, match=r"discriminator\.blocks.*1 to 3"):
            DinoDiscriminator(make_vit(), blocks=blocks)
    with pytest.raises(RasrError, match="is a ResNet"):
        DinoDiscriminator(timm.create_model("test_resnet"))
    coarse = VisionTransformer(img_size=16, patch_size=8, embed_dim=16, depth=1, num_heads=2)
    with pytest.raises(RasrError, match="2x2"):
        DinoDiscriminator(coarse, blocks=(1,))
    tokenless = VisionTransformer(
        img_size=32, patch_size=8, embed_dim=16, depth=1, num_heads=2, class_token=False, global_pool="avg"
    )
    with pytest.raises(RasrError, match="no class token"):
        DinoDiscriminator(tokenless, blocks=(1,))


def test_configuration_builds_it_from_a_file(compose, images, tmp_path):
    torch.save(timm.create_model("test_vit").state_dict(), tmp_path / "vit.pth")
    overrides = ["discriminator.vit=test_vit", f"discriminator.weights={tmp_path}/vit.pth"]
    cfg = compose([*overrides, "discriminator.blocks=[1,3]", "discriminator.augment=false"])
    discriminator = instantiate(cfg.discriminator)
    assert discriminator.blocks == [1, 3] and discriminator.augment is False
    saved = torch.load(tmp_path / "vit.pth", weights_only=True)
    assert all(torch.equal(saved[name], p) for name, p in discriminator.vit.named_parameters())
    assert len(discriminator(images)) == 3
    assert compose(["discriminator=none"]).discriminator is None


def test_absent_weights_stop_before_training(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    message = r"vit_base_patch16_224\.dino.*model\.safetensors.*discriminator\.weights=FILE.*=none"
    with pytest.raises(RasrError, match=message) as error:
        DinoDiscriminator()
    assert "\n" not in str(error.value)
    with pytest.raises(RasrError, match=r"discriminator\.weights=lost\.pth"):
        DinoDiscriminator(weights="lost.pth")
