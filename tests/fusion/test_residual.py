"""ResidualFusion: what is trained, what is frozen, features."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file, save_file

from benchmarks.sd21 import UNET
from rasr.errors import RasrError
from rasr.models import ReferenceFeatures, ResidualFusion, build_rasr_net, make_tiny_backbone
from rasr.models.rasr_net import count_parameters
from tests.helpers import wake_zero_convs


def test_parameter_count_on_sd21_base():
    """The paper's 12.8 M: 1,321,472 in LoRA and 11,479,680 in the 13 zero-convolutions."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**UNET)
        branch = ResidualFusion.from_unet(unet, rank=4)
    trainable = {n: p.numel() for n, p in branch.named_parameters() if p.requires_grad}
    assert sum(trainable.values()) == 12_801_152
    assert sum(count for name, count in trainable.items() if "lora" in name) == 1_321_472


def test_rank_changes_the_lora_only(backbone):
    four, eight = (ResidualFusion.from_unet(backbone.unet, rank=r) for r in (4, 8))
    lora = {
        r: sum(p.numel() for n, p in b.named_parameters() if "lora" in n) for r, b in ((4, four), (8, eight))
    }
    assert lora[8] == 2 * lora[4]
    assert count_parameters(eight)[0] - lora[8] == count_parameters(four)[0] - lora[4]


def test_lora_layers_can_be_chosen(backbone):
    branch = ResidualFusion.from_unet(backbone.unet, lora_layers=("to_q", "net.2"))
    names = [n for n, _ in branch.named_parameters() if "lora_A" in n]
    assert names and all(".to_q." in n or ".ff.net.2." in n for n in names)
    with pytest.raises(RasrError, match=r"no layer's name ends with 'to_x'; give some of .*to_q"):
        ResidualFusion.from_unet(backbone.unet, lora_layers=("to_x",))


def test_lora_sits_on_the_down_blocks_only(backbone):
    branch = ResidualFusion.from_unet(backbone.unet)
    lora = [n for n, _ in branch.named_parameters() if "lora_A" in n]
    assert lora and all(n.startswith("net.down_blocks.") for n in lora)
    for part in (
        "to_q",
        "ff.net.2",
        "proj_in",
        "proj_out",
        "conv1",
        "conv_shortcut",
        "time_emb_proj",
        "downsamplers",
    ):
        assert any(part in n for n in lora), part


def test_features_fit_the_unets_skips(trained_net, images):
    net = trained_net
    features = net.fusion.features(images["ref"])
    encoded = net.backbone.encode_unet(
        net.backbone.encode(images["lq_up"]), net.backbone.encode_prompt(["", ""])
    )
    assert [f.shape for f in features.down_block_res_samples] == [s.shape for s in encoded.skips]
    assert features.mid_block_res_sample.shape == encoded.hidden_states.shape


def test_features_survive_a_file(trained_net, images, tmp_path):
    features = trained_net.fusion.features(images["ref"]).map(torch.Tensor.detach)
    save_file(features.state_dict(), tmp_path / "features.safetensors")
    again = ReferenceFeatures.from_state_dict(load_file(tmp_path / "features.safetensors"))
    sr = trained_net(images["lq_up"], images["ref"])
    assert torch.equal(trained_net(images["lq_up"], again), sr)


@pytest.mark.parametrize(
    "setting", [{"ref_timestep": 200}, {"ref_prompt": "a cat"}, {"ref_prompt": None}, {"lora_alpha": 4}]
)
def test_every_setting_changes_the_features(setting, images):
    mids = []
    for kwargs in ({}, setting):
        net = build_rasr_net(make_tiny_backbone(seed=0), **kwargs)
        wake_zero_convs(net)
        mids.append(net.fusion.features(images["ref"]).mid_block_res_sample)
    assert not torch.equal(*mids)


def test_image_without_vae_is_refused(backbone, images):
    branch = ResidualFusion.from_unet(backbone.unet)
    with pytest.raises(RuntimeError, match="attach"):
        branch.features(images["ref"])
