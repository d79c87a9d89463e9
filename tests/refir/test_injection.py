"""ReFIR on the one-step backbone: any size, references, tiles, kept banks, both systems at once."""

import copy

import pytest
import torch

from rasr.errors import RasrError
from rasr.fusion.attention.bank import ReferenceBank
from rasr.fusion.combined import CombinedFusion
from rasr.fusion.injection import InjectionFusion, fit_reference
from rasr.inference import Restorer, open_kept
from rasr.references import Reference
from rasr.refir import ChainNet, InjectionConfig, OneStepChain, with_fusion
from rasr.refir.canvas import shared_canvas
from tests.refir.unets import wake

CONFIG = InjectionConfig.preset("onestep")


def reference(image: torch.Tensor, **changes) -> Reference:
    return Reference("ref", lambda: image, **changes)


def opened(net, config=CONFIG, *, ref_size=512, use_branch=False):
    """As `open_refir` puts it together."""
    if config.canvas == "shared":
        return ChainNet(OneStepChain(net), config, ref_size=ref_size)
    injected = InjectionFusion(config, ref_size)
    return with_fusion(net, CombinedFusion(net.fusion, injected) if use_branch else injected)


def restorer(net, config=CONFIG, *, ref_size=512, use_branch=False, kept=None, **settings) -> Restorer:
    net = opened(net, config, ref_size=ref_size, use_branch=use_branch)
    store = None if kept is None else open_kept(kept, net)
    return Restorer(net, device="cpu", kept=store, **{"color_fix": "none"} | settings)


def differ(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


@pytest.mark.parametrize("size", [(1, 1), (17, 9)])
@pytest.mark.parametrize("ref_size", [(1, 1), (50, 33)])
def test_any_size(net, size, ref_size):
    sr = restorer(net).restore(torch.rand(3, *size), [reference(torch.rand(3, *ref_size))])
    assert sr.shape == (3, 4 * size[0], 4 * size[1])
    assert sr.min() >= 0 and sr.max() <= 1


@pytest.mark.parametrize("settings", [{}, {"color_fix": "wavelet"}, {"tile_size": 32, "tile_overlap": 16}])
@pytest.mark.parametrize("strength", ["no reference", "scale 0"])
def test_without_strength_it_is_the_base_model_bit_for_bit(net, pictures, settings, strength):
    settings = {"color_fix": "none"} | settings
    base = Restorer(net, device="cpu", **settings).restore(pictures["lq"], prompt="a cat")
    config = CONFIG if strength == "no reference" else InjectionConfig.preset("onestep", scale=0)
    references = [] if strength == "no reference" else [reference(pictures["ref"])]
    ours = restorer(net, config, **settings).restore(pictures["lq"], references, prompt="a cat")
    assert torch.equal(ours, base)


def test_color_fix_is_the_nets_own_where_none_is_asked_for(net, pictures):
    asked = {name: restorer(net, color_fix=name).restore(pictures["lq"]) for name in ("adain", "none", None)}
    assert torch.equal(asked[None], asked["adain"])
    own = copy.copy(net)
    own.color_fix = "none"
    assert torch.equal(restorer(own, color_fix=None).restore(pictures["lq"]), asked["none"])
    assert not torch.equal(asked["adain"], asked["none"])


def test_reference_prompt_and_settings_matter(net, pictures):
    lq, ref = pictures["lq"], pictures["ref"]
    default = restorer(net).restore(lq, [reference(ref)])
    assert torch.equal(default, restorer(net).restore(lq, [reference(ref)]))
    variants = [
        restorer(net).restore(lq),
        restorer(net).restore(lq, [reference(pictures["other"])]),
        restorer(net).restore(lq, [reference(ref, prompt="a cat")]),
        restorer(net).restore(lq, [reference(ref)], prompt="a cat"),
        restorer(net, ref_size=32).restore(lq, [reference(ref)]),
        restorer(net, InjectionConfig.preset("seesr")).restore(lq, [reference(ref)]),
        restorer(net, tile_size=32, tile_overlap=16).restore(lq, [reference(ref)]),
    ]
    for other in variants:
        assert differ(default, other) > 1e-5
    assert restorer(net, scale=2).restore(lq, [reference(ref)]).shape == (3, 24, 32)
    small = restorer(net, process_size=96).restore(lq, [reference(ref)])
    assert small.shape == default.shape and differ(small, default) > 1e-5


def test_half_precision_is_close(net, pictures, tmp_path):
    lq, ref = pictures["lq"], pictures["ref"]
    full = restorer(net).restore(lq, [reference(ref)])
    half_net = copy.deepcopy(net).bfloat16()
    half = restorer(half_net).restore(lq, [reference(ref)])
    assert half.dtype == torch.float32
    assert differ(half, full) < 0.05
    assert differ(half, restorer(half_net).restore(lq)) > 0.005, "the reference counts"
    for _ in range(2):  # makes the bank, takes it from the disk, where it is float16
        kept = restorer(half_net, kept=tmp_path)
        assert differ(kept.restore(lq, [reference(ref, key="ref")]), half) < 0.05


def test_several_references(net, pictures):
    lq, ref, other = pictures["lq"], pictures["ref"], pictures["other"]
    one = restorer(net).restore(lq, [reference(ref)])
    copies = [reference(ref, weight=w) for w in (0.5, 0.3, 0.2)]
    torch.testing.assert_close(restorer(net).restore(lq, copies), one, atol=2e-5, rtol=0)
    both = [reference(ref, weight=0.5), reference(other, weight=0.5)]
    assert differ(restorer(net).restore(lq, both), one) > 1e-5


def test_both_systems_on_one_backbone(net, pictures):
    lq, ref = pictures["lq"], pictures["other"]
    branch = Restorer(net, device="cpu", color_fix="none").restore(lq, ref)
    both = restorer(net, use_branch=True).restore(lq, [reference(ref)])
    assert differ(both, branch) > 1e-5
    assert differ(both, restorer(net).restore(lq, [reference(ref)])) > 1e-5
    # Without injection what is left is the branch, bit for bit.
    off = InjectionConfig.preset("onestep", scale=0)
    assert torch.equal(restorer(net, off, use_branch=True).restore(lq, [reference(ref)]), branch)
    weaker = restorer(net, use_branch=True, conditioning_scale=0.1)
    assert differ(weaker.restore(lq, [reference(ref)]), both) > 1e-5


def test_every_tile_sees_the_whole_reference(net, pictures):
    """A tile restored alone is that tile of the whole."""
    lq = torch.rand(3, 8, 24)
    tiled = restorer(net, tile_size=32, tile_overlap=0).restore(lq, [reference(pictures["ref"])])
    first = restorer(net).restore(lq[:, :, :8], [reference(pictures["ref"])])
    torch.testing.assert_close(tiled[..., 4:24, 4:24], first[..., 4:24, 4:24], atol=0.1, rtol=0)


def test_shared_canvas_pads_the_target(net, pictures):
    config = InjectionConfig.preset("onestep", canvas="shared")
    shared = restorer(net, config).restore(pictures["lq"], [reference(pictures["ref"])])
    assert shared.shape == (3, 48, 64)
    assert differ(shared, restorer(net).restore(pictures["lq"], [reference(pictures["ref"])])) > 1e-5
    with pytest.raises(RasrError, match="canvas=shared takes one reference"):
        restorer(net, config).restore(pictures["lq"], [reference(pictures["ref"], weight=0.5)] * 2)


@pytest.mark.parametrize(
    ("lq", "ref", "canvas"),
    [
        ((64, 96), (160, 80), (128, 96)),  # cut to twice the target, then mirrored to its width
        ((128, 64), (40, 64), (128, 64)),  # enlarged to just over half
        ((64, 64), (64, 64), (64, 64)),
    ],
)
def test_shared_canvas_sizes(lq, ref, canvas):
    lq, ref = torch.rand(1, 3, *lq), torch.rand(1, 3, *ref)
    both = shared_canvas(lq, ref)
    assert both.shape == (2, 3, *canvas)
    height, width = lq.shape[-2:]
    assert torch.equal(both[:1, :, :height, :width], lq)
    if canvas[0] > height:
        assert torch.equal(both[0, :, height, :width], lq[0, :, -1])  # the edge is repeated: symmetric


@pytest.mark.parametrize(
    ("size", "max_side", "expected"),
    [
        ((70, 45), None, (64, 32)),
        ((70, 45), 40, (32, 16)),
        ((5, 5), None, (16, 16)),
        ((16, 1000), 64, (16, 64)),
    ],
)
def test_references_keep_their_aspect(size, max_side, expected):
    assert fit_reference(torch.rand(1, 3, *size), 16, max_side).shape[-2:] == expected


def test_strength_is_a_factor_on_the_injections_scale(net, pictures):
    lq, ref = pictures["lq"], [reference(pictures["ref"])]
    half = restorer(net, InjectionConfig.preset("onestep", scale=0.25)).restore(lq, ref)
    assert torch.equal(restorer(net, conditioning_scale=0.5).restore(lq, ref), half)
    assert torch.equal(restorer(net, conditioning_scale=0).restore(lq, ref), restorer(net).restore(lq))


class TestKeptBanks:
    def test_a_kept_bank_replaces_the_pass_over_the_reference(self, net, pictures, tmp_path):
        def unread():
            raise AssertionError("the reference was read again")

        ref = reference(pictures["ref"], key="ab12", prompt="a cat")
        computed = restorer(net).restore(pictures["lq"], [ref])
        first = restorer(net, kept=tmp_path).restore(pictures["lq"], [ref])
        assert torch.equal(first, computed)
        kept = Reference("ref", unread, "a cat", key="ab12")
        again = restorer(net, kept=tmp_path).restore(pictures["lq"], [kept])
        assert differ(again, computed) < 2e-3  # float16 on disk
        assert differ(again, restorer(net).restore(pictures["lq"])) > 1e-3
        assert len(list(tmp_path.rglob("*.safetensors"))) == 1
        # The first version's folders have no kept.json: the file's name says all.
        (tmp_path / "kept.json").unlink()
        assert torch.equal(restorer(net, kept=tmp_path).restore(pictures["lq"], [kept]), again)

    def test_its_size_is_two_bytes_per_value(self, net, pictures, tmp_path):
        made = restorer(net, kept=tmp_path)
        ref = reference(pictures["other"], key="cd34")
        kept = made.keep(ref)
        bank = ReferenceBank.from_state_dict(kept)
        # Decoder of the tiny backbone at 64 pixels: 64, 32, 16 channels at 8, 16, 32 tokens a side.
        values = 3 * (8 * 8 * 64 + 16 * 16 * 32 + 32 * 32 * 16)
        assert sum(t.numel() for t in bank.hidden.values()) == values
        made.kept.put(ref, kept)
        nbytes = ReferenceBank.from_state_dict(made.kept.get(ref)).nbytes
        assert nbytes == 2 * values + 4 * sum(t.numel() for t in bank.direction.values())
        assert made.kept.file(ref).stat().st_size < nbytes + 8192

    def test_other_weights_prompts_and_settings_have_other_banks(self, net, pictures, tmp_path):
        def file(config=CONFIG, ref_size=512, key="ab12", prompt=""):
            store = open_kept(tmp_path, opened(net, config, ref_size=ref_size))
            return store.file(reference(pictures["ref"], key=key, prompt=prompt))

        files = {file(), file(prompt="a cat"), file(key="cd34"), file(ref_size=256)}
        files.add(file(InjectionConfig.preset("supir", canvas="own")))
        files.add(file(InjectionConfig.preset("onestep", position="both")))
        # Strength and schedule act on the target alone.
        assert file(InjectionConfig(scale=0.1, layer_schedule="cosine")) == file()
        backup = {k: v.clone() for k, v in net.backbone.unet.state_dict().items()}
        wake(net.backbone.unet, seed=99)
        files.add(file())
        net.backbone.unet.load_state_dict(backup)
        assert len(files) == 7

    def test_what_depends_on_the_photograph_cannot_be_kept(self, net, tmp_path):
        with pytest.raises(RasrError, match=r"need a one-step model and refir\.canvas=own"):
            restorer(net, InjectionConfig.preset("onestep", canvas="shared"), kept=tmp_path)
        with pytest.raises(RasrError, match="use_branch=true references depend on the photograph"):
            restorer(net, use_branch=True, kept=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 0}, "scale=0"),
        ({"process_size": 3}, "process_size=3"),
        ({"tile_size": 100}, "tile_size=100"),
        ({"ref_size": 5}, "ref_size=5 is below 16"),
        ({"ref_size": "large"}, "method.ref_size=large"),
        ({"color_fix": "nofix"}, "color_fix='nofix'"),
    ],
)
def test_wrong_settings_are_named(net, settings, message):
    with pytest.raises(RasrError, match=message):
        restorer(net, **settings)
