"""Adversarial losses: values by hand, what they pull where."""

import math

import pytest
import torch

from rasr.losses import discriminator_loss, generator_loss


def bce(logit: float, target: float) -> float:
    p = 1 / (1 + math.exp(-logit))
    return -(target * math.log(p) + (1 - target) * math.log(1 - p))


def test_values_by_hand():
    real = [torch.tensor([[[[1.0, -2.0]]]]), torch.tensor([[0.5]])]
    fake = [torch.tensor([[[[0.0, 3.0]]]]), torch.tensor([[-1.0]])]
    expected_g = (bce(0, 0.8) + bce(3, 0.8)) / 2 + bce(-1, 0.8)
    assert generator_loss(fake).item() == pytest.approx(expected_g, rel=1e-6)
    expected_d = (bce(1, 0.8) + bce(-2, 0.8)) / 2 + bce(0.5, 0.8) + (bce(0, 0) + bce(3, 0)) / 2 + bce(-1, 0)
    assert discriminator_loss(real, fake).item() == pytest.approx(expected_d, rel=1e-6)


def test_levels_are_summed_and_samples_averaged():
    level = torch.randn(4, 1, 3, 3)
    torch.testing.assert_close(generator_loss([level, level]), 2 * generator_loss([level]))
    torch.testing.assert_close(generator_loss([level.repeat(2, 1, 1, 1)]), generator_loss([level]))


def test_both_aim_at_the_smoothed_target_for_real():
    best = torch.tensor([[math.log(0.8 / 0.2)]], requires_grad=True)
    generator_loss([best]).backward()
    assert best.grad.item() == pytest.approx(0, abs=1e-7)
    real, fake = torch.tensor([[math.log(4.0)]], requires_grad=True), torch.zeros(1, 1, requires_grad=True)
    discriminator_loss([real], [fake]).backward()
    assert real.grad.item() == pytest.approx(0, abs=1e-7)
    assert fake.grad.item() == pytest.approx(0.5)  # down, towards 0: not smoothed


def test_huge_and_half_precision_logits_are_finite():
    logits = [torch.tensor([[1e4], [-1e4]], dtype=torch.bfloat16)]
    for loss in (generator_loss(logits), discriminator_loss(logits, logits)):
        assert loss.dtype == torch.float32 and torch.isfinite(loss)


def test_gradient_against_finite_differences():
    levels = [torch.randn(2, 1, 3, 3, dtype=torch.float64), torch.randn(2, 1, dtype=torch.float64)]
    inputs = [level.requires_grad_() for level in levels]
    assert torch.autograd.gradcheck(lambda *x: generator_loss(x), inputs)
    others = [torch.randn_like(level).requires_grad_() for level in levels]
    assert torch.autograd.gradcheck(lambda *x: discriminator_loss(x[:2], x[2:]), (*inputs, *others))
