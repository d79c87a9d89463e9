"""Correspondence fusion on small networks: what must hold whatever it has learnt."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.fusion.base import ReferenceFusion, ReferenceUse
from rasr.fusion.correspondence import CorrespondenceFusion
from rasr.fusion.registry import FUSIONS, get_fusion, register_fusion
from rasr.models import build_rasr_net, load_rasr_net, make_tiny_backbone, save_weights

PROMPT = ["a cat", ""]


@pytest.fixture
def net(backbone):
    return build_rasr_net(backbone, fusion="correspondence", fusion_settings={"ref_size": 96}).eval()


def wake(net):
    """Values as if trained: a fresh transfer adds nothing."""
    generator = torch.Generator().manual_seed(1)
    transfer = net.fusion.transfer
    transfer.alpha.data.fill_(0.5)
    transfer.delta.weight.data.copy_(0.05 * torch.randn(transfer.delta.weight.shape, generator=generator))
    return net


def test_fresh_or_off_or_without_reference_it_is_the_backbone_bit_for_bit(net, images):
    expected = net.backbone(images["lq_up"], PROMPT)
    assert torch.equal(net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=1.0), expected)
    wake(net)
    assert torch.equal(net(images["lq_up"], images["ref"], prompt=PROMPT, conditioning_scale=0.0), expected)
    assert torch.equal(net(images["lq_up"], prompt=PROMPT), expected)
    assert not torch.equal(net(images["lq_up"], images["ref"], prompt=PROMPT), expected)


@pytest.mark.parametrize("size", [(64, 64), (16, 40), (1, 1), (33, 95), (300, 20)])
def test_references_of_any_size_and_aspect(net, images, size):
    sr = wake(net)(images["lq_up"], torch.rand(2, 3, *size))
    assert sr.shape == images["lq_up"].shape and sr.isfinite().all()
    assert sr.min() >= 0 and sr.max() <= 1


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_flat_references(net, images, level):
    assert wake(net)(images["lq_up"], torch.full((2, 3, 64, 64), level)).isfinite().all()


def test_kept_gives_what_the_image_gives(net, images):
    wake(net)
    ref = (images["ref"] * 255).round() / 255
    kept = net.fusion.keep(net.backbone, ref)
    assert {name: tensor.dtype for name, tensor in kept.items()} == {
        "coarse": torch.float16,
        "fine": torch.float16,
        "image": torch.uint8,
    }
    expected = net(images["lq_up"], ref)
    assert torch.equal(net(images["lq_up"], [net.prepare(kept)]), expected)


def test_long_references_are_shrunk_unless_the_photograph_is_large(net):
    ref = torch.rand(1, 3, 40, 200)
    assert net.fusion.keep(net.backbone, ref)["image"].shape[-2:] == (19, 96)
    assert net.fusion.keep(net.backbone, ref, ReferenceUse(canvas=(64, 150)))["image"].shape[-2:] == (30, 150)


def test_one_of_several_is_chosen_at_every_place(net, images):
    wake(net)
    refs = [net.prepare(images["ref"]), net.prepare(images["ref"].flip(-1))]
    fused = net.restore(images["lq_up"], refs, conditioning_scale=1.0)
    numbers = fused.provenance.reference
    assert numbers.shape == fused.provenance.strength.shape and set(numbers.unique().tolist()) <= {0, 1}
    twice = net.restore(images["lq_up"], [refs[0], refs[0]], conditioning_scale=1.0)
    once = net.restore(images["lq_up"], [refs[0]], conditioning_scale=1.0)
    torch.testing.assert_close(twice.sr, once.sr, atol=1e-5, rtol=0)


def test_provenance_of_the_photograph_itself_is_its_own_place(images):
    """Even an untrained head knows the same descriptors again."""
    net = build_rasr_net(make_tiny_backbone(seed=0), fusion="correspondence").eval()
    up = torch.nn.functional.interpolate(images["ref"], scale_factor=0.25, mode="bicubic", antialias=True)
    lq_up = torch.nn.functional.interpolate(up.clamp(0, 1), scale_factor=4, mode="bicubic").clamp(0, 1)
    place = net.restore(lq_up, images["ref"], conditioning_scale=1.0).provenance.place
    height, width = place.shape[-2:]
    x = (torch.arange(width) + 0.5) / width
    y = (torch.arange(height) + 0.5) / height
    assert (place[:, 0] - x).abs().median() < 0.02
    assert (place[:, 1] - y[:, None]).abs().median() < 0.02


def test_weights_survive_a_file_and_a_folder(net, images, tmp_path):
    wake(net).backbone.save_pretrained(tmp_path / "backbone")
    built = build_rasr_net(str(tmp_path / "backbone"), fusion="correspondence", color_fix="anchor").eval()
    built.fusion.load_state_dict(net.fusion.state_dict())
    expected = built(images["lq_up"], images["ref"])
    path = save_weights(built, tmp_path / "weights")
    again = load_rasr_net(path)
    assert isinstance(again.fusion, CorrespondenceFusion) and again.color_fix == "anchor"
    torch.testing.assert_close(again(images["lq_up"], images["ref"]), expected)
    folder = built.save_pretrained(tmp_path / "folder", dtype=torch.float32)
    torch.testing.assert_close(load_rasr_net(folder)(images["lq_up"], images["ref"]), expected)
    assert load_rasr_net(folder, fusion="correspondence").fusion.name == "correspondence"
    with pytest.raises(RasrError, match="has no fusion residual"):
        load_rasr_net(folder, fusion="residual")
    with pytest.raises(RasrError, match="holds the fusion correspondence"):
        load_rasr_net(path, fusion="residual")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"coarse_dim": 0}, "coarse_dim=0"),
        ({"depth": 3}, "the keys are"),
        ({"ref_size": "x"}, "ref_size=x"),
    ],
)
def test_wrong_settings_are_named(backbone, settings, message):
    with pytest.raises(RasrError, match=message):
        build_rasr_net(backbone, fusion="correspondence", fusion_settings=settings)


def test_unknown_fusions_are_named(backbone):
    with pytest.raises(RasrError, match="fusion='nothing' is unknown"):
        build_rasr_net(backbone, fusion="nothing")
    with pytest.raises(RasrError, match="fusion_settings are of other fusions"):
        build_rasr_net(backbone, fusion_settings={"coarse_dim": 3})


def test_a_fusion_of_somebody_else(backbone, images, tmp_path, monkeypatch):
    """One class, no other file: it is built, restores, is written and loaded."""
    monkeypatch.setattr("rasr.fusion.registry.FUSIONS", dict(FUSIONS))

    class MeanColour(ReferenceFusion):
        name = "mean_colour"
        acts_on_image = True

        def __init__(self):
            super().__init__()
            self.amount = torch.nn.Parameter(torch.zeros(()))

        @classmethod
        def from_backbone(cls, backbone, *, scale):
            return cls()

        def keep(self, backbone, ref, use=None):
            return {"mean": ref.mean((-2, -1), keepdim=True)}

        def fuse(self, backbone, restored, prepared, strength):
            from rasr.fusion.base import Fused

            mean = sum(kept["mean"] for kept in prepared) / len(prepared)
            return Fused(restored.sr + strength * self.amount * (mean - restored.sr))

    import rasr.fusion.registry as registry

    registry.FUSIONS["mean_colour"] = register_fusion(MeanColour)
    assert get_fusion("mean_colour") is MeanColour
    backbone.save_pretrained(tmp_path / "backbone")
    net = build_rasr_net(str(tmp_path / "backbone"), fusion="mean_colour").eval()
    assert torch.equal(net(images["lq_up"], images["ref"]), net(images["lq_up"]))
    net.fusion.amount.data.fill_(0.5)
    expected = net(images["lq_up"], images["ref"])
    again = load_rasr_net(save_weights(net, tmp_path / "weights"))
    torch.testing.assert_close(again(images["lq_up"], images["ref"]), expected)
