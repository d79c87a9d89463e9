"""The training of correspondence fusion: it learns to match, and what it keeps is what it computes."""

import pytest
import torch
import torch.nn.functional as F

from rasr.data.two_view import OUTSIDE, ViewRange, make_view
from rasr.errors import RasrError
from rasr.losses import RestorationLoss
from rasr.models import build_rasr_net, make_tiny_backbone
from rasr.seeding import SampleRandom
from rasr.training import CorrespondenceModule
from rasr.training.matching_loss import coarse_loss, fine_loss, match_error, places_on_grid

SIZE = 64
PLAIN = ViewRange(far=0, other=0, occluder=0)


class Quarter(torch.nn.Module):
    def forward(self, gt, seeds):
        return F.interpolate(gt, scale_factor=0.25, mode="area")


def photo(seed):
    noise = torch.rand(1, 3, 12, 16, generator=torch.Generator().manual_seed(seed))
    fine = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(seed + 99))
    up = [F.interpolate(x, (96, 128), mode="bicubic") for x in (noise, fine)]
    return (0.7 * up[0] + 0.3 * up[1]).clamp(0, 1)[0]


@pytest.fixture
def batch():
    views = [make_view(photo(i), (10, 20), SIZE, PLAIN, SampleRandom(i)) for i in range(2)]
    return {
        "gt": torch.stack([photo(i)[:, 10 : 10 + SIZE, 20 : 20 + SIZE] for i in range(2)]),
        "ref": torch.stack([view for view, _ in views]),
        "places": torch.stack([places for _, places in views]),
        "prompt": ["", ""],
        "sample_id": ["a.png#0", "b.png#0"],
        "seed": torch.tensor([1, 2]),
    }


def make_module(**settings):
    net = build_rasr_net(
        make_tiny_backbone(seed=0),
        fusion="correspondence",
        fusion_settings={"coarse_dim": 16, "fine_dim": 8, "head_width": 16, "transfer_depth": 1},
    )
    module = CorrespondenceModule(
        net,
        RestorationLoss({"mse": 1.0}),
        Quarter(),
        torch.optim.AdamW,
        val_conditioning_scale=1.0,
        **settings,
    )
    module.logged = {}
    module.log = lambda name, value, **_: module.logged.__setitem__(name, float(value))
    return module.train()


def test_a_few_steps_learn_to_match_and_leave_the_backbone_alone(batch):
    module = make_module(wrong_share=0.5)
    frozen = {n: p.clone() for n, p in module.net.backbone.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in module.net.parameters() if p.requires_grad], lr=3e-3)
    losses = []
    for _ in range(12):
        optimizer.zero_grad()
        module.training_step(batch, 0).backward()
        optimizer.step()
        losses.append(module.logged["train/loss_match_coarse"])
    assert losses[-1] < losses[0] - 0.3
    assert all(p.grad is not None for p in module.net.fusion.parameters())
    assert all(torch.equal(p, frozen[n]) for n, p in module.net.backbone.named_parameters())
    assert {"train/loss_match_fine", "train/loss_image", "train/loss_reliability"} <= set(module.logged)


def test_before_its_step_there_is_no_transfer(batch):
    module = make_module(transfer_from=5)
    module.training_step(batch, 0)
    assert "train/loss_image" not in module.logged


def test_validation_logs_right_minus_wrong_and_draws_seven_columns(batch):
    module = make_module().eval()
    with torch.no_grad():
        outputs = module.validation_step(batch, 0)
    assert list(outputs["panel"]) == ["LR", "without", "wrong", "right", "truth", "reference", "match"]
    assert all(picture.shape == batch["gt"].shape for picture in outputs["panel"].values())
    assert module.logged["val/right_minus_wrong"] == 0  # a fresh transfer adds nothing
    for name in ("psnr_bicubic", "psnr_without", "match_error_px", "reliability_wrong"):
        assert f"val/{name}" in module.logged


def test_kept_features_equal_computed_ones(batch, tmp_path):
    module = make_module(features=str(tmp_path / "features"))
    expected = module._compute_features(batch)
    first = module.frozen_features(batch)
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 2
    module._compute_features = None  # nothing is computed again
    again = module.frozen_features(batch)
    for name, tensor in expected.items():
        torch.testing.assert_close(first[name], tensor, atol=2e-2, rtol=2e-3)  # half precision
        assert torch.equal(first[name], again[name])


def test_a_cut_off_feature_file_is_made_again(batch, tmp_path):
    module = make_module(features=str(tmp_path))
    module.frozen_features(batch)
    for path in tmp_path.glob("*.safetensors"):
        path.write_bytes(path.read_bytes()[:100])
    assert module.frozen_features(batch)["x0"].isfinite().all()


def test_losses_are_least_at_the_truth():
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(1, 16, 16, 16, generator=generator), dim=1)
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    here = torch.stack([x, y])[None]
    scale = torch.tensor(20.0)
    right, off = (fine_loss(keys, keys, scale, places) for places in (here, here + 1))
    assert right < off
    coarse = F.normalize(F.avg_pool2d(keys, 2), dim=1)
    right, off = (coarse_loss(coarse, coarse, scale, places) for places in (here, here + 4))
    assert right < off
    nowhere = torch.full_like(here, OUTSIDE)
    assert coarse_loss(coarse, coarse, scale, nowhere) == 0 == fine_loss(keys, keys, scale, nowhere)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_places_on_the_grid_of_the_latents(factor):
    pixels = (torch.arange(SIZE // 4) + 0.5) * 4
    places = torch.stack([pixels.expand(SIZE // 4, -1), pixels[:, None].expand(-1, SIZE // 4)])[None]
    size = torch.Size([SIZE // factor] * 2)
    on_grid = places_on_grid(places, size, factor)
    expected = torch.arange(SIZE // factor).float()
    assert on_grid.shape == (1, 2, *size)
    tolerance = 1e-4 if factor >= 4 else 0.6
    assert (on_grid[0, 0] - expected).abs().max() <= tolerance
    error, shown = match_error(places / SIZE, places)
    assert shown.all() and error.max() < 1e-4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"wrong_share": 1.5}, "wrong_share=1.5"),
        ({"transfer_from": -1}, "transfer_from"),
        ({"transfer_crop": 0}, "transfer_crop"),
        ({"matching_weight": "x"}, "matching_weight"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(RasrError, match=message):
        make_module(**settings)


def test_another_fusion_is_refused():
    net = build_rasr_net(make_tiny_backbone(seed=0))
    with pytest.raises(RasrError, match="fusion=correspondence"):
        CorrespondenceModule(net, RestorationLoss({"mse": 1.0}), Quarter(), torch.optim.AdamW)
