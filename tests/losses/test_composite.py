"""RestorationLoss: raw terms, weights in one place, nothing built in vain, clear errors."""

import pytest
import torch
from hydra.utils import instantiate

from rasr.errors import RasrError
from rasr.losses import RestorationLoss, generator_loss

PAPER = {"mse": 1.0, "lpips": 2.0, "gram": 1e-3, "gan": 0.1}
# Table 4: without both, with each, with both.
ROWS = {
    "mse_lpips": {"mse", "lpips"},
    "mse_lpips_gram": {"mse", "lpips", "gram"},
    "mse_lpips_gan": {"mse", "lpips", "gan"},
    "default": {"mse", "lpips", "gram", "gan"},
    "mse_only": {"mse"},
    "psnr_only": {"psnr"},
}


def test_mse_is_the_mean_square():
    loss = RestorationLoss({"mse": 3.0})
    sr, gt = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), 0.25)
    terms = loss(sr, gt)
    assert terms["mse"].item() == pytest.approx(0.0625)
    assert loss.total(terms).item() == pytest.approx(3 * 0.0625)


def test_psnr_gives_every_image_the_same_weight():
    loss = RestorationLoss({"psnr": 1})
    sr, gt = torch.zeros(2, 3, 4, 4), torch.tensor([0.1, 0.01]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    assert loss(sr, gt)["psnr"].item() == pytest.approx(-(20 + 40) / 2, abs=1e-3)


def test_gradient_term_compares_strength_not_direction():
    loss = RestorationLoss({"gradient": 1})
    ramp = torch.arange(8.0).expand(1, 3, 8, 8)
    for other, expected in ((ramp, 0), (-ramp, 0), (ramp.mT, 0), (ramp / 4, 1.5), (0 * ramp, 2)):
        assert loss(other, ramp)["gradient"].item() == pytest.approx(expected, abs=2e-3)


def test_gradient_term_rewards_no_grid_of_period_4():
    loss = RestorationLoss({"gradient": 1})
    flat = torch.full((1, 3, 32, 32), 0.5)
    column = torch.tensor([0.1, 0.1, -0.1, -0.1]).repeat(8)
    assert loss(flat + column, flat)["gradient"].item() < 1e-6
    assert loss(flat + column.repeat_interleave(4)[:32], flat)["gradient"].item() > 0.01


@pytest.mark.parametrize("name", ["psnr", "gradient"])
def test_terms_against_finite_differences(name):
    generator = torch.Generator().manual_seed(0)
    sr, gt = torch.rand(2, 2, 3, 8, 8, generator=generator, dtype=torch.float64)
    loss = RestorationLoss({name: 1})
    assert torch.autograd.gradcheck(lambda x: loss(x, gt)[name], sr.requires_grad_(), fast_mode=True)


def test_terms_are_raw_and_the_total_weighted(vgg_file, images):
    loss = RestorationLoss(PAPER, vgg_weights=str(vgg_file))
    terms = loss(**images)
    assert set(terms) == {"mse", "lpips", "gram"}
    features = [loss.vgg(images[name]) for name in ("sr", "gt")]
    torch.testing.assert_close(terms["lpips"], loss.lpips(*features))
    torch.testing.assert_close(terms["gram"], loss.gram(*features))
    terms["gan"] = generator_loss([torch.randn(2, 1)])
    expected = sum(PAPER[name] * terms[name] for name in PAPER)
    torch.testing.assert_close(loss.total(terms), expected)


def test_zero_at_identity(vgg_file, images):
    loss = RestorationLoss({**PAPER, "gan": 0}, vgg_weights=str(vgg_file))
    terms = loss(images["gt"], images["gt"])
    assert all(term == 0 for term in terms.values())


def test_gradient_reaches_the_image_only(vgg_file, images):
    loss = RestorationLoss({**PAPER, "gan": 0}, vgg_weights=str(vgg_file)).train()
    sr = images["sr"].requires_grad_()
    loss.total(loss(sr, images["gt"])).backward()
    assert torch.isfinite(sr.grad).all() and sr.grad.abs().sum() > 0
    assert all(not p.requires_grad and p.grad is None for p in loss.parameters())


def test_gradient_against_finite_differences(vgg_file, images):
    loss = RestorationLoss({"mse": 1, "lpips": 2, "gram": 1e-3}, vgg_weights=str(vgg_file)).double()
    sr, gt = (images[name][:1, :, :16, :16].double() for name in ("sr", "gt"))
    function = lambda x: loss.total(loss(x, gt))  # noqa: E731
    assert torch.autograd.gradcheck(function, sr.requires_grad_(), fast_mode=True, atol=1e-9, rtol=1e-4)
    mse = RestorationLoss({"mse": 1})
    small = sr.detach()[..., :3, :3].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: mse(x, gt[..., :3, :3])["mse"], small)


def test_float32_under_autocast_and_from_half_precision(vgg_file, images):
    loss = RestorationLoss({**PAPER, "gan": 0}, vgg_weights=str(vgg_file))
    expected = loss(**images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(**images)
        assert all(t.dtype == torch.float32 for t in loss(images["sr"].bfloat16(), images["gt"]).values())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize(("option", "terms"), ROWS.items())
def test_table_4_builds_what_it_weighs_and_nothing_else(compose, monkeypatch, vgg_file, option, terms):
    built = []
    for name in ("VGG16Features", "LPIPS", "GramLoss"):
        stub = lambda *args, name=name: built.append(name)  # noqa: E731
        monkeypatch.setattr(f"rasr.losses.composite.{name}", stub)
    loss = instantiate(compose([f"loss={option}"]).loss)
    assert loss.weights == {name: PAPER.get(name, 1.0) for name in terms}
    parts = {"lpips": {"VGG16Features", "LPIPS"}, "gram": {"VGG16Features", "GramLoss"}}
    assert set(built) == set().union(*(parts.get(term, set()) for term in terms))


def test_configured_weights_file_and_layers_are_used(compose, vgg_file, images):
    overrides = ["loss=mse_lpips_gram", f"loss.vgg_weights={vgg_file}"]
    default = instantiate(compose(overrides).loss)(**images)
    fewer = instantiate(compose([*overrides, "loss.gram_layers.relu1_2=0"]).loss)(**images)
    assert fewer["gram"] < default["gram"] and fewer["lpips"] == default["lpips"]


def test_absent_weights_stop_before_training(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(RasrError, match=r"vgg16-397923af\.pth.*loss\.vgg_weights=FILE"):
        RestorationLoss(PAPER)
    RestorationLoss({"mse": 1, "lpips": 0, "gram": 0, "gan": 0.1})  # needs none


def test_total_insists_on_every_term():
    loss = RestorationLoss({"mse": 1.0})
    with pytest.raises(ValueError, match="do not match"):
        loss.total({})
    with pytest.raises(ValueError, match="do not match"):
        loss.total({"mse": torch.zeros(()), "other": torch.zeros(())})
    with pytest.raises(ValueError, match="do not match"):
        RestorationLoss({"mse": 1, "gan": 1}).total({"mse": torch.zeros(())})


def test_wrong_weights_are_named():
    with pytest.raises(RasrError, match="'typo'"):
        RestorationLoss({"mse": 1.0, "typo": 1.0})
    with pytest.raises(RasrError, match="every loss weight is 0"):
        RestorationLoss({"mse": 0.0})
    for wrong in (-1.0, float("nan"), float("inf")):
        with pytest.raises(RasrError, match=r"loss\.weights\.mse"):
            RestorationLoss({"mse": wrong})
