"""Weight files: what is in them, exact loading, clear errors."""

import json
import re

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rasr.backbones.lora import lora_layers, trainable_parameters
from rasr.errors import RasrError
from rasr.models import build_backbone_net, build_rasr_net, load_rasr_net, make_tiny_backbone, save_weights
from tests.helpers import wake_zero_convs


@pytest.fixture
def saved(backbone, tmp_path):
    """A trained net over a saved backbone, and its weight file."""
    backbone.save_pretrained(tmp_path / "backbone")
    net = build_rasr_net(str(tmp_path / "backbone"), rank=2, text_blocks=(2, 3)).eval()
    wake_zero_convs(net)
    return net, save_weights(net, tmp_path / "weights")


def test_file_holds_the_trainable_tensors_only(saved):
    net, path = saved
    assert path.name == "weights.safetensors"
    names = {name.replace("fusion.", "branch.", 1) for name in trainable_parameters(net)}
    assert set(load_file(path)) == names  # as files always named them


def test_loaded_net_restores_the_same(saved, images):
    net, path = saved
    again = load_rasr_net(path)
    assert again.config == net.config
    expected = net(images["lq_up"], images["ref"])
    torch.testing.assert_close(again(images["lq_up"], images["ref"]), expected, atol=1e-5, rtol=0)
    assert not trainable_parameters(again) and not lora_layers(again)
    unmerged = load_rasr_net(path, merge=False)
    assert torch.equal(unmerged(images["lq_up"], images["ref"]), expected)
    assert load_file(save_weights(unmerged, path.parent / "again")).keys() == load_file(path).keys()
    with pytest.raises(ValueError, match="load it with merge=False"):
        save_weights(again, path.parent / "merged")


@pytest.mark.parametrize("lost", ["outputs/gone/backbone/weights", "/gone/weights"])
def test_a_backbone_that_is_gone_is_named(saved, lost):
    _, path = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    config = json.loads(metadata["rasr_net_config"]) | {"backbone": lost}
    save_file(load_file(path), path, metadata={"rasr_net_config": json.dumps(config)})
    with pytest.raises(RasrError, match=f"over the backbone {lost}, which is gone; add backbone=DIRECTORY"):
        load_rasr_net(path)


def test_nan_is_named_with_its_tensor(saved):
    _, path = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    name = max(tensors)
    tensors[name].view(-1)[0] = float("nan")
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(RasrError, match=re.escape(f"{path} holds NaN or infinity (tensor {name}); take")):
        load_rasr_net(path)


def test_color_fix_travels_with_the_weights(tmp_path):
    make_tiny_backbone(seed=0).save_pretrained(tmp_path / "backbone")
    net = build_rasr_net(str(tmp_path / "backbone"), color_fix="none")
    assert load_rasr_net(save_weights(net, tmp_path / "weights")).color_fix == "none"
    assert load_rasr_net(net.save_pretrained(tmp_path / "folder")).color_fix == "none"
    assert load_rasr_net(tmp_path / "backbone").color_fix == "adain"  # no branch, no word about it


def test_backbone_can_be_replaced(saved, images, tmp_path):
    net, path = saved
    make_tiny_backbone(seed=5).save_pretrained(tmp_path / "other")
    again = load_rasr_net(path, backbone=str(tmp_path / "other"))
    assert not torch.equal(again(images["lq_up"], images["ref"]), net(images["lq_up"], images["ref"]))


def test_backbone_directory_is_a_net_without_branch(tmp_path, images):
    net = build_backbone_net(make_tiny_backbone(seed=3))
    assert any(p.requires_grad for p in net.parameters())
    path = save_weights(net, tmp_path / "weights")
    again = load_rasr_net(path)
    assert again.fusion is None
    assert torch.equal(again(images["lq_up"]), net(images["lq_up"]))


@pytest.mark.parametrize("change", ["missing", "renamed", "extra", "shape"])
def test_wrong_tensors_are_named(saved, change):
    _, path = saved
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    name = "branch.net.controlnet_mid_block.weight"
    if change in ("missing", "renamed"):
        tensor = tensors.pop(name)
    if change == "renamed":
        tensors["wrong"] = tensor
    if change == "extra":
        tensors["extra"] = torch.zeros(1)
    if change == "shape":
        tensors[name] = torch.zeros(2, 2, 1, 1)
    save_file(tensors, path, metadata=metadata)
    own = name.removeprefix("branch.")
    pattern = {
        "missing": own,
        "renamed": f"{own}.*wrong",
        "extra": "extra",
        "shape": rf"{own}.*\(2, 2, 1, 1\)",
    }
    with pytest.raises(RasrError, match=pattern[change]):
        load_rasr_net(path)


def test_files_that_are_no_weights_are_named(tmp_path):
    with pytest.raises(RasrError, match=r"nothing.safetensors does not exist"):
        load_rasr_net(tmp_path / "nothing.safetensors")
    for name in ("zero.safetensors", "zero.ckpt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(RasrError, match=f"{name} is damaged"):
            load_rasr_net(tmp_path / name)
    save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(RasrError, match="not a RASR weight file"):
        load_rasr_net(tmp_path / "foreign.safetensors")
    for metadata in ("garbage", "[1]", "null"):
        save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors", {"rasr_net_config": metadata})
        with pytest.raises(RasrError, match=r"foreign.safetensors is not a RASR weight file"):
            load_rasr_net(tmp_path / "foreign.safetensors")
    torch.save(torch.zeros(3), tmp_path / "tensor.ckpt")
    with pytest.raises(RasrError, match=r"tensor.ckpt is not a RASR weight file"):
        load_rasr_net(tmp_path / "tensor.ckpt")
    (tmp_path / "README.md").write_text("# Not weights")
    with pytest.raises(RasrError, match=r"README.md is damaged or not a weight file") as caught:
        load_rasr_net(tmp_path / "README.md")
    assert "\n" not in str(caught.value)


def test_truncated_file_is_named(saved):
    _, path = saved
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RasrError, match="damaged"):
        load_rasr_net(path)


def test_pickled_objects_are_refused(tmp_path):
    torch.save({"state_dict": {}, "rasr_net_config": pytest.raises}, tmp_path / "evil.ckpt")
    with pytest.raises(RasrError, match="damaged or not a weight file"):
        load_rasr_net(tmp_path / "evil.ckpt")


def test_lost_backbone_is_named(backbone, tmp_path):
    net = build_rasr_net(backbone)
    path = save_weights(net, tmp_path / "weights")
    with pytest.raises(RasrError, match="names no backbone; add backbone="):
        load_rasr_net(path)
