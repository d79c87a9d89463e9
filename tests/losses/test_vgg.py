"""VGG-16: torchvision's numbers, never trained, never in half precision, and clear about its weights."""

import shutil
import time

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from rasr.errors import RasrError
from rasr.losses.vgg import LAYERS, URL, VGG16Features


def test_features_are_torchvisions(vgg, vgg_file, images):
    assert torchvision.models.VGG16_Weights.IMAGENET1K_V1.url == URL
    with torch.device("meta"):
        reference = torchvision.models.vgg16()
    tensors = {k: v.float() for k, v in torch.load(vgg_file, weights_only=True).items() if "features" in k}
    reference.load_state_dict(tensors, strict=False, assign=True)
    x = torchvision.transforms.functional.normalize(
        images["sr"], [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )
    features = vgg(images["sr"])
    assert {name: f.shape[1] for name, f in features.items()} == LAYERS
    # Positions in torchvision's list: relu1_2 is the activation after the first block's second convolution.
    for name, end in zip(LAYERS, (4, 9, 16, 23, 30), strict=True):
        torch.testing.assert_close(features[name], reference.features[:end](x))


def test_is_frozen_whatever_it_is_told(vgg):
    vgg.train().requires_grad_(True)
    assert not any(module.training for module in vgg.modules())
    assert not any(parameter.requires_grad for parameter in vgg.parameters())
    torch.nn.Sequential(vgg).train()
    assert not vgg.training
    assert not {"mean", "std"} & set(vgg.state_dict())


def test_computes_in_float32_under_autocast(vgg, images):
    expected = vgg(images["sr"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = vgg(images["sr"])
    for name in LAYERS:
        assert found[name].dtype == torch.float32
        assert torch.equal(found[name], expected[name])
    assert all(f.dtype == torch.float32 for f in vgg(images["sr"].bfloat16()).values())


def test_safetensors_are_read_too(vgg, vgg_file, tmp_path):
    save_file(torch.load(vgg_file, weights_only=True), tmp_path / "vgg.safetensors")
    same = VGG16Features(str(tmp_path / "vgg.safetensors"))
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), vgg.parameters(), strict=True))


def test_weights_in_torchs_cache_are_found_without_network(vgg, vgg_file, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    shutil.copy(vgg_file, tmp_path / "hub" / "checkpoints")
    same = VGG16Features()
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), vgg.parameters(), strict=True))


@pytest.mark.parametrize("is_offline", [True, False])
def test_absent_weights_are_named_quickly(tmp_path, monkeypatch, is_offline):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", is_offline)
    monkeypatch.setattr(
        "rasr.losses.vgg.URL", "http://127.0.0.1:9/vgg16-397923af.pth"
    )  # nobody listens there
    start = time.perf_counter()
    with pytest.raises(RasrError) as error:
        VGG16Features()
    assert time.perf_counter() - start < 2
    message = str(error.value)
    place = tmp_path / "hub" / "checkpoints" / "vgg16-397923af.pth"
    assert (
        str(place) in message and "http://127.0.0.1:9/vgg16" in message and "loss.vgg_weights=FILE" in message
    )
    assert "\n" not in message


def test_wrong_files_are_one_clear_error(vgg_file, tmp_path):
    tensors = torch.load(vgg_file, weights_only=True)
    torch.save({k: v for k, v in tensors.items() if k != "features.28.bias"}, tmp_path / "short.pth")
    torch.save({**tensors, "features.30.bias": torch.zeros(1)}, tmp_path / "long.pth")
    torch.save({**tensors, "features.0.bias": torch.zeros(1)}, tmp_path / "shape.pth")
    for name, expected in {
        "absent.pth": "no such file",
        "short.pth": r"features\.28\.bias",
        "long.pth": r"features\.30\.bias",
        "shape.pth": r"features\.0\.bias",
    }.items():
        with pytest.raises(RasrError, match=rf"{name}.*{expected}") as error:
            VGG16Features(str(tmp_path / name))
        assert "\n" not in str(error.value) and "vgg_weights" in str(error.value)
