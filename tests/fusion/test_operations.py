"""The formulas, against their literal form in the paper."""

import torch

from rasr.fusion.attention.operations import adain, fuse, gate_tokens, mean_direction, spatial_gate


def explicit_gate(target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
    """The paper's text: similarity matrix, row sums, min-max."""
    x, y = (torch.nn.functional.normalize(t.double().flatten(2), dim=1) for t in (target, source))
    sums = (x.transpose(1, 2) @ y).sum(2)
    low, high = sums.amin(1, keepdim=True), sums.amax(1, keepdim=True)
    return ((sums - low) / (high - low)).view(target.shape[0], 1, *target.shape[-2:])


def test_gate_equals_the_similarity_matrix():
    target, source = torch.randn(2, 48, 12, 10), torch.randn(2, 48, 7, 9)
    gate = spatial_gate(target, mean_direction(source))
    assert gate.shape == (2, 1, 12, 10)
    torch.testing.assert_close(gate.double(), explicit_gate(target, source), atol=2e-5, rtol=0)
    # What a wrong order of averaging and normalising would give.
    wrong = spatial_gate(target, source.mean((-2, -1)))
    assert (wrong - gate).abs().max() > 1e-3


def test_gate_is_normalised_per_row():
    target = torch.randn(3, 8, 6, 5)
    gate = spatial_gate(target, torch.randn(3, 8))
    torch.testing.assert_close(gate.amin((1, 2, 3)), torch.zeros(3))
    torch.testing.assert_close(gate.amax((1, 2, 3)), torch.ones(3))
    one = spatial_gate(target[1:2], torch.zeros(1, 8))
    assert (one == 0).all()  # no division by zero where nothing differs


def test_gate_stays_in_float32_and_takes_one_direction_for_all_rows():
    target, direction = torch.randn(2, 64, 8, 8), mean_direction(torch.randn(1, 64, 8, 8))
    half = spatial_gate(target.half(), direction)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, spatial_gate(target.half().float(), direction), atol=1e-6, rtol=0)


def test_gate_is_resized_for_a_site_of_another_size():
    gate = torch.rand(2, 1, 4, 6)
    tokens = gate_tokens(gate, 8 * 12)
    assert tokens.shape == (2, 1, 96, 1)
    larger = torch.nn.functional.interpolate(gate, (8, 12), mode="bilinear", align_corners=False)
    torch.testing.assert_close(tokens[:, 0, :, 0], larger.flatten(1))
    torch.testing.assert_close(gate_tokens(gate, 24)[:, 0, :, 0], gate.flatten(1))


def test_union_of_references_has_the_weighted_mean_direction():
    parts = [torch.randn(1, 16, 5, 4), torch.randn(1, 16, 5, 8)]
    union = mean_direction(torch.cat(parts, dim=3))
    weighted = (mean_direction(parts[0]) * 20 + mean_direction(parts[1]) * 40) / 60
    torch.testing.assert_close(union, weighted)


def test_adain_gives_the_statistics_over_tokens():
    content, style = torch.randn(2, 3, 50, 4) * 2 + 1, torch.randn(2, 3, 30, 4) * 0.5 - 3
    content[0, 0, :, 0] = 7.0  # a constant channel becomes the constant mean
    out = adain(content, style)
    torch.testing.assert_close(out.mean(2), style.mean(2))
    wanted = style.std(2, correction=0)
    wanted[0, 0, 0] = 0
    torch.testing.assert_close(out.std(2, correction=0), wanted, atol=1e-4, rtol=1e-4)


def test_equation_2_and_several_references():
    intra, inter, other = (torch.randn(2, 3, 6, 4) for _ in range(3))
    mask = torch.rand(2, 1, 6, 1)
    expected = (1 - 0.6 * mask) * intra + 0.6 * mask * inter
    torch.testing.assert_close(fuse(intra, [(inter.clone(), 0.6 * mask)]), expected)
    # Eq. (4) as printed would give the reference alone at s = 0.
    torch.testing.assert_close(fuse(intra, [(inter.clone(), 0.0)]), intra, rtol=0, atol=0)
    shares, masks = (0.7, 0.3), (mask, 1 - mask)
    total = sum(a * m for a, m in zip(shares, masks, strict=True))
    mixed = shares[0] * masks[0] * inter + shares[1] * masks[1] * other
    pairs = [(inter.clone(), shares[0] * masks[0]), (other.clone(), shares[1] * masks[1])]
    torch.testing.assert_close(fuse(intra, pairs), (1 - total) * intra + mixed)
