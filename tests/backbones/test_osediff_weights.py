"""OSEDiff's weights: exact reading, the right scale, merging, and a reference branch that never sees them."""

import json
import os
import pickle
import shutil
from pathlib import Path

import hydra
import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file, save_file

from rasr.backbones.lora import lora_layers, merge_lora
from rasr.backbones.osediff_weights import load_adapters, merge_osediff, read_osediff, save_osediff
from rasr.errors import RasrError
from rasr.models import (
    OneStepBackbone,
    RASRNet,
    ResidualFusion,
    build_rasr_net,
    load_rasr_net,
    make_tiny_backbone,
    save_weights,
)
from tests.helpers import wake_zero_convs
from tests.osediff_file import make_osediff, write_osediff

PROMPT = ["a cat", ""]


@pytest.fixture(scope="module")
def untouched() -> OneStepBackbone:
    """The tiny backbone, for tests that leave it as it is."""
    return make_tiny_backbone(seed=0)


@pytest.fixture(scope="module")
def official(untouched, tmp_path_factory) -> Path:
    """A file in the official format, UNet rank 4, VAE rank 2, for the tiny backbone."""
    folder = tmp_path_factory.mktemp("official")
    return write_osediff(untouched.unet, untouched.vae, folder / "osediff.pkl")


@pytest.fixture(scope="module")
def base(untouched, tmp_path_factory) -> str:
    """The tiny backbone as a directory."""
    folder = tmp_path_factory.mktemp("base")
    untouched.save_pretrained(folder)
    return str(folder)


def run_with_adapters(path: Path, images: torch.Tensor) -> torch.Tensor:
    """What the official code does, in diffusers' and peft's own words: three adapters, all their defaults."""
    backbone, entries = make_tiny_backbone(seed=0), torch.load(path, weights_only=True)
    for net, rank, adapters, tensors in (
        (backbone.unet, "rank_unet", ["encoder", "decoder", "others"], "state_dict_unet"),
        (backbone.vae, "rank_vae", ["encoder"], "state_dict_vae"),
    ):
        for adapter in adapters:
            prefix = "unet" if net is backbone.unet else "vae"
            layers = entries[f"{prefix}_lora_{adapter}_modules"]
            net.add_adapter(LoraConfig(r=entries[rank], target_modules=layers), f"default_{adapter}")
        net.set_adapter([f"default_{adapter}" for adapter in adapters])
        result = net.load_state_dict(entries[tensors], strict=False)
        assert not result.unexpected_keys
        assert not [key for key in result.missing_keys if "lora" in key]
    with torch.no_grad():
        return backbone(images, PROMPT)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
@pytest.mark.parametrize("ranks", [(4, 2), pytest.param((2, 8), marks=pytest.mark.slow)])
def test_adapters_and_merged_weights_give_what_peft_gives(backbone, base, images, tmp_path, ranks):
    ranks = dict(zip(("rank_unet", "rank_vae"), ranks, strict=True))
    path = write_osediff(backbone.unet, backbone.vae, tmp_path / "osediff.pkl", **ranks)
    expected = run_with_adapters(path, images["lq_up"])
    assert (expected - backbone(images["lq_up"], PROMPT)).abs().mean() > 0.01

    load_adapters(read_osediff(path), backbone.unet, backbone.vae)
    torch.testing.assert_close(backbone(images["lq_up"], PROMPT), expected, atol=1e-4, rtol=0)
    assert not any(p.requires_grad for p in backbone.parameters())
    merged = OneStepBackbone.from_pretrained(base, osediff_weights=path)
    torch.testing.assert_close(merged(images["lq_up"], PROMPT), expected, atol=1e-4, rtol=0)


def test_merged_weights_are_the_formula(backbone, official):
    """W + 8 / rank * B A, for a linear layer, a 3x3 convolution of the VAE and the trained conv_in."""
    unet = {name: p.clone() for name, p in backbone.unet.named_parameters()}
    vae = {name: p.clone() for name, p in backbone.vae.named_parameters()}
    entries = torch.load(official, weights_only=True)
    merge_osediff(official, backbone.unet, backbone.vae)

    def update(part: str, layer: str, adapter: str) -> torch.Tensor:
        down, up = (entries[f"state_dict_{part}"][f"{layer}.lora_{x}.{adapter}.weight"] for x in "AB")
        product = torch.einsum("or,ri->oi", up.flatten(1), down.flatten(1))
        return 8 / entries[f"rank_{part}"] * product

    layer = "up_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    expected = unet[f"{layer}.weight"] + update("unet", layer, "default_decoder")
    torch.testing.assert_close(backbone.unet.get_submodule(layer).weight, expected)

    layer = "encoder.down_blocks.0.resnets.0.conv1"
    weight = vae[f"{layer}.weight"]
    expected = weight + update("vae", layer, "default_encoder").view_as(weight)
    torch.testing.assert_close(backbone.vae.get_submodule(layer).weight, expected)

    weight = entries["state_dict_unet"]["conv_in.base_layer.weight"]
    assert not torch.equal(weight, unet["conv_in.weight"])
    expected = weight + update("unet", "conv_in", "default_encoder").view_as(weight)
    torch.testing.assert_close(backbone.unet.conv_in.weight, expected)
    bias = entries["state_dict_unet"]["conv_in.base_layer.bias"]
    assert torch.equal(backbone.unet.conv_in.bias, bias) and not torch.equal(bias, unet["conv_in.bias"])

    decoder = {
        name: p for name, p in backbone.vae.named_parameters() if not name.startswith(("enc", "quant"))
    }
    assert all(torch.equal(p, vae[name]) for name, p in decoder.items())


def test_nothing_of_peft_stays(backbone, official):
    modules = {name: type(module) for name, module in backbone.named_modules()}
    merge_osediff(official, backbone.unet, backbone.vae)
    assert {name: type(module) for name, module in backbone.named_modules()} == modules
    assert not hasattr(backbone.unet, "peft_config") and not hasattr(backbone.vae, "peft_config")
    assert not any("lora" in name for name in backbone.state_dict())


def test_safetensors_hold_the_same(base, images, official, tmp_path):
    path = tmp_path / "osediff.safetensors"
    save_osediff(read_osediff(official), path)
    ours, theirs = read_osediff(path), read_osediff(official)
    for name in ("rank_unet", "rank_vae", "unet_lora_others_modules", "vae_lora_encoder_modules"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert list(tmp_path.glob(".*")) == []
    outputs = [
        OneStepBackbone.from_pretrained(base, osediff_weights=file)(images["lq_up"], PROMPT)
        for file in (official, path)
    ]
    assert torch.equal(*outputs)
    with pytest.raises(RasrError, match=r"must end in \.safetensors"):
        save_osediff(ours, tmp_path / "osediff.bin")


def test_tensors_that_share_memory_are_converted(untouched, tmp_path):
    entries = make_osediff(untouched.unet, untouched.vae)
    first, second = list(entries["state_dict_vae"])[2:6:2]  # the A matrices of two equal layers
    assert entries["state_dict_vae"][first].shape == entries["state_dict_vae"][second].shape
    entries["state_dict_vae"][second] = entries["state_dict_vae"][first]
    torch.save(entries, tmp_path / "osediff.pkl")
    save_osediff(read_osediff(tmp_path / "osediff.pkl"), tmp_path / "osediff.safetensors")
    assert torch.equal(
        *(load_file(tmp_path / "osediff.safetensors")[f"vae.{name}"] for name in (first, second))
    )


LORA_KEY = "mid_block.attentions.0.proj_in.lora_B.default_others.weight"


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda e: e.pop("rank_vae"), "1 missing .rank_vae"),
        (lambda e: e.update(state_dict_sft={}), "1 unexpected .state_dict_sft"),
        (lambda e: e.update(rank_unet="4"), "entry rank_unet"),
        (lambda e: e.update(vae_lora_encoder_modules=3), "entry vae_lora_encoder_modules"),
        (lambda e: e.update(state_dict_vae=[]), "entry state_dict_vae"),
        (lambda e: e["state_dict_unet"].pop(LORA_KEY), rf"UNet.*1 missing .{LORA_KEY}"),
        (
            lambda e: e["state_dict_unet"].pop("conv_in.base_layer.bias"),
            r"missing .conv_in\.base_layer\.bias",
        ),
        (lambda e: e["state_dict_vae"].update(extra=torch.ones(1)), "VAE.*1 unexpected .extra"),
        (
            lambda e: e["state_dict_unet"].update(wrong=e["state_dict_unet"].pop(LORA_KEY)),
            f"1 missing .{LORA_KEY}.*1 unexpected .wrong",
        ),
        (lambda e: e["state_dict_unet"].update({LORA_KEY: torch.ones(2, 2)}), rf"{LORA_KEY} has shape .2, 2"),
        (
            lambda e: e["state_dict_unet"][LORA_KEY].fill_(float("nan")),
            f"{LORA_KEY} holds values that are no finite",
        ),
        (lambda e: e.update(rank_unet=8), "has shape"),
        (lambda e: e["unet_lora_others_modules"].pop(), r"unexpected .*default_others\.weight"),
        (lambda e: e["unet_lora_others_modules"].append("mid_block.lost"), "no layer mid_block.lost"),
        (lambda e: e["vae_lora_encoder_modules"].append("encoder.mid_block"), "no layer encoder.mid_block"),
    ],
)
def test_what_does_not_fit_is_named_and_changes_nothing(untouched, tmp_path, change, pattern):
    entries = make_osediff(untouched.unet, untouched.vae)
    change(entries)
    path = tmp_path / "osediff.pkl"
    torch.save(entries, path)
    before = {name: p.clone() for name, p in untouched.state_dict().items()}
    with pytest.raises(RasrError, match=pattern) as caught:
        merge_osediff(path, untouched.unet, untouched.vae)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    after = untouched.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(p, before[name]) for name, p in after.items())


@pytest.mark.parametrize(
    ("change", "pattern"),
    [
        (lambda tensors, entries: tensors.pop(f"unet.{LORA_KEY}"), rf"UNet.*1 missing .{LORA_KEY}"),
        (lambda tensors, entries: tensors.update({"vae.a": torch.ones(1)}), "VAE.*1 unexpected .a"),
        (lambda tensors, entries: entries.pop("rank_vae"), "1 missing .rank_vae"),
        (lambda tensors, entries: tensors.update({"clip.a": torch.ones(1)}), r"clip\.a belongs to neither"),
    ],
)
def test_safetensors_that_do_not_fit_are_named(untouched, tmp_path, change, pattern):
    entries = make_osediff(untouched.unet, untouched.vae)
    tensors = {
        f"{part}.{name}": tensor
        for part in ("unet", "vae")
        for name, tensor in entries.pop(f"state_dict_{part}").items()
    }
    change(tensors, entries)
    save_file(tensors, tmp_path / "a.safetensors", metadata={"osediff": json.dumps(entries)})
    with pytest.raises(RasrError, match=pattern):
        merge_osediff(tmp_path / "a.safetensors", untouched.unet, untouched.vae)


class Evil:
    """Unpickling this makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("write", [torch.save, lambda e, path: path.write_bytes(pickle.dumps(e, protocol=2))])
def test_code_in_a_pickle_is_refused_and_not_run(untouched, tmp_path, write):
    entries = make_osediff(untouched.unet, untouched.vae) | {"rank_vae": Evil(tmp_path / "ran")}
    write(entries, tmp_path / "osediff.pkl")
    with pytest.raises(RasrError, match="none of which was run"):
        read_osediff(tmp_path / "osediff.pkl")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("suffix", ["pkl", "safetensors"])
@pytest.mark.parametrize("keep", [0, 3, 1000, -100])
def test_truncated_file_is_named(official, tmp_path, suffix, keep):
    path = tmp_path / f"cut.{suffix}"
    if suffix == "pkl":
        path.write_bytes(official.read_bytes())
    else:
        save_osediff(read_osediff(official), path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RasrError, match=rf"cut\.{suffix} is damaged") as caught:
        read_osediff(path)
    assert "\n" not in str(caught.value)


def test_foreign_files_are_named(tmp_path):
    with pytest.raises(RasrError, match=r"osediff_weights=.*lost\.pkl does not exist"):
        read_osediff(tmp_path / "lost.pkl")
    torch.save([1, 2], tmp_path / "list.pkl")
    with pytest.raises(RasrError, match=r"list\.pkl holds a list"):
        read_osediff(tmp_path / "list.pkl")
    save_file({"a": torch.ones(1)}, tmp_path / "plain.safetensors")
    with pytest.raises(RasrError, match=r"plain\.safetensors is damaged or no OSEDiff"):
        read_osediff(tmp_path / "plain.safetensors")


def test_weights_of_another_network_are_refused(official):
    other = make_tiny_backbone(seed=0, unet_channels=(16, 32, 32, 32))
    with pytest.raises(RasrError, match=r"has no layer .*conv_shortcut"):
        other.merge_osediff(official)
    assert other.osediff_weights is None
    assert not lora_layers(other)


# Backbone and net


def test_backbone_remembers_what_it_holds(base, images, official, tmp_path):
    merged = OneStepBackbone.from_pretrained(base, osediff_weights=official)
    assert merged.osediff_weights == str(official)
    assert OneStepBackbone.from_pretrained(base).osediff_weights is None
    merged.save_pretrained(tmp_path / "merged")
    again = OneStepBackbone.from_pretrained(tmp_path / "merged")
    assert again.osediff_weights == str(official)
    assert torch.equal(again(images["lq_up"], PROMPT), merged(images["lq_up"], PROMPT))
    with pytest.raises(RasrError, match="already holds the OSEDiff weights"):
        OneStepBackbone.from_pretrained(tmp_path / "merged", osediff_weights=official)


def test_half_precision_is_rounded_once(base, official):
    full = OneStepBackbone.from_pretrained(base, osediff_weights=official)
    half = OneStepBackbone.from_pretrained(base, osediff_weights=official, torch_dtype=torch.bfloat16)
    assert {p.dtype for p in half.parameters()} == {torch.bfloat16}
    expected = full.unet.state_dict()
    assert all(torch.equal(p, expected[name].bfloat16()) for name, p in half.unet.state_dict().items())


def test_branch_never_sees_osediff(base, images, official):
    """Features of the same trained branch are identical; the backbone's output and RASRNet's are not."""
    plain, net = build_rasr_net(base), build_rasr_net(base, osediff_weights=official)
    for each in (plain, net):
        wake_zero_convs(each.eval())
    assert net.fusion.vae is not net.backbone.vae
    assert plain.fusion.vae is plain.backbone.vae
    ours, theirs = (each.fusion.features(images["ref"]).state_dict() for each in (net, plain))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())
    assert not torch.equal(net(images["lq_up"]), plain(images["lq_up"]))
    assert not torch.equal(net(images["lq_up"], images["ref"]), plain(images["lq_up"], images["ref"]))
    merged = OneStepBackbone.from_pretrained(base, osediff_weights=official)
    assert torch.equal(net(images["lq_up"], prompt=PROMPT), merged(images["lq_up"], PROMPT))


def test_configuration_key(compose, official):
    cfg = compose(["model=tiny", f"model.osediff_weights={official}"])
    net = hydra.utils.instantiate(cfg.model)
    assert net.backbone.osediff_weights == net.config.osediff_weights == str(official)
    assert hydra.utils.instantiate(compose(["model=tiny"]).model).backbone.osediff_weights is None


def test_net_over_osediff_survives_its_weight_file(base, images, official, tmp_path):
    official = shutil.copy(official, tmp_path / "osediff.pkl")
    net = build_rasr_net(base, osediff_weights=official).eval()
    wake_zero_convs(net)
    path = save_weights(net, tmp_path / "weights")
    assert not any("vae" in name for name in load_file(path))
    expected = net(images["lq_up"], images["ref"])
    again = load_rasr_net(path, merge=False)
    assert again.config.osediff_weights == str(official)
    assert torch.equal(again(images["lq_up"], images["ref"]), expected)

    moved = official.rename(tmp_path / "moved.pkl")
    with pytest.raises(RasrError, match=r"osediff\.pkl, which are not there; add osediff_weights="):
        load_rasr_net(path)
    again = load_rasr_net(path, osediff_weights=moved, merge=False)
    assert torch.equal(again(images["lq_up"], images["ref"]), expected)
    backbone_only = load_rasr_net(base, osediff_weights=moved)
    assert torch.equal(backbone_only(images["lq_up"]), net(images["lq_up"]))


def test_branch_over_a_merged_backbone_is_refused(base, official):
    merged = OneStepBackbone.from_pretrained(base, osediff_weights=official)
    branch = ResidualFusion.from_unet(OneStepBackbone.from_pretrained(base).unet)
    refused = pytest.raises(RasrError, match="use build_rasr_net")
    with refused:
        RASRNet(merged, branch)
    for copy_vae in (False, True):
        with refused:
            branch.attach(merged, copy_vae=copy_vae)
    with refused:
        build_rasr_net(merged)
    branch.attach(OneStepBackbone.from_pretrained(base))
    assert RASRNet(merged, branch).fusion is branch


def test_a_second_adapter_leaves_the_first_one_active(backbone, official, images):
    """peft itself activates the newest adapter only: two of OSEDiff's three would have no effect."""
    load_adapters(read_osediff(official), backbone.unet, backbone.vae)
    assert all(set(layer.active_adapters) == set(layer.lora_A) for layer in lora_layers(backbone).values())
    adapters = backbone(images["lq_up"], PROMPT)
    merge_lora(backbone.unet)
    merge_lora(backbone.vae)
    torch.testing.assert_close(backbone(images["lq_up"], PROMPT), adapters, atol=1e-4, rtol=0)
