"""Encoders: really retrieve, identify themselves, and fail in one line."""

import time

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from rasr import pretrained
from rasr.errors import RasrError
from rasr.retrieval import ColorGradientEncoder, TimmEncoder, encoder_from_settings
from tests.retrieval.photographs import crops_of_photographs, degrade


@pytest.fixture(scope="module")
def vit_file(tmp_path_factory):
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net = timm.create_model("test_vit", pretrained=False)
    path = tmp_path_factory.mktemp("weights") / "test_vit.safetensors"
    save_file(net.state_dict(), path)
    return path


def images(*sizes: tuple[int, int]) -> list[torch.Tensor]:
    return [torch.rand(3, *size) for size in sizes]


def test_color_gradient_finds_other_crops_of_the_same_photograph():
    """Queries are x4-degraded crops; the database holds other, non-overlapping crops of the photographs."""
    encoder = ColorGradientEncoder()
    crops = crops_of_photographs(size=128)
    database = [(name, crop) for name, all_crops in crops.items() for crop in all_crops[1::2]]
    queries = [(name, crop) for name, all_crops in crops.items() for crop in all_crops[0::2]]
    names = np.array([name for name, _ in database])
    truth = np.array([name for name, _ in queries])
    chance = np.mean([np.mean(names == name) for name in truth])
    known = encoder.encode([crop for _, crop in database])

    lq = [degrade(crop, seed) for seed, (_, crop) in enumerate(queries)]
    enlarged = [functional.interpolate(x[None], scale_factor=4, mode="bicubic").clamp(0, 1)[0] for x in lq]
    for batch in (lq, enlarged):
        best = (encoder.encode(batch) @ known.T).argmax(1).numpy()
        accuracy = np.mean(names[best] == truth)
        assert chance < 0.2
        assert accuracy > 0.65, f"top-1 {accuracy:.3f} against chance {chance:.3f}"


@pytest.mark.parametrize("kind", ["color_gradient", "timm"])
def test_vectors_are_unit_and_independent_of_the_batch(kind, vit_file):
    encoder = (
        ColorGradientEncoder() if kind == "color_gradient" else TimmEncoder("test_vit", weights=vit_file)
    )
    batch = [*images((1, 1), (17, 31), (300, 40)), torch.zeros(3, 20, 20), torch.ones(3, 64, 64)]
    vectors = encoder.encode(batch)
    assert vectors.shape == (5, encoder.dim)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(encoder.encode(batch[1:2])[0], vectors[1], atol=1e-5, rtol=0)


def test_color_gradient_keys_change_vectors_and_version():
    image = images((50, 50))
    default = ColorGradientEncoder()
    assert ColorGradientEncoder().version == default.version
    for other in (ColorGradientEncoder(size=32), ColorGradientEncoder(grid=4)):
        assert other.version != default.version
        vector = other.encode(image)
        assert vector.shape[1] != default.dim or not torch.allclose(vector, default.encode(image))
    for wrong in ({"size": 18, "grid": 4}, {"size": 8}, {"grid": 0}):
        with pytest.raises(RasrError, match="multiple"):
            ColorGradientEncoder(**wrong)


def test_timm_features_are_those_of_the_model(vit_file):
    encoder = TimmEncoder("test_vit", weights=str(vit_file), device="cpu")
    net = timm.create_model("test_vit", pretrained=True, pretrained_cfg_overlay={"file": vit_file}).eval()
    config = timm.data.resolve_model_data_config(net)
    image = images((160, 160))[0]
    side = round(160 * config["crop_pct"])  # the model sees the centre, resized to 160
    edge = (160 - side) // 2
    cut = image[None, :, edge : edge + side, edge : edge + side]
    seen = functional.interpolate(cut, (160, 160), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(config[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.inference_mode():
        expected = net.forward_head(net.forward_features((seen - mean) / std), pre_logits=True)
    torch.testing.assert_close(encoder.encode([image]), functional.normalize(expected, dim=1))


def test_timm_settings_make_the_same_encoder_again(vit_file):
    encoder = TimmEncoder("test_vit", weights=vit_file, img_size=96)
    again = encoder_from_settings(encoder.settings, device="cpu")
    assert (again.name, again.version, again.dim) == (encoder.name, encoder.version, encoder.dim)
    batch = images((40, 60))
    torch.testing.assert_close(again.encode(batch), encoder.encode(batch))
    with pytest.raises(RasrError, match="unknown kind"):
        encoder_from_settings({"kind": "other"})


def test_timm_keys_change_vectors_and_version(vit_file, tmp_path):
    batch = images((80, 100))
    default = TimmEncoder("test_vit", weights=vit_file)
    smaller = TimmEncoder("test_vit", weights=vit_file, img_size=96)
    net = timm.create_model("test_vit", pretrained=False)  # other random weights, as a .pth
    torch.save(net.state_dict(), tmp_path / "other.pth")
    other = TimmEncoder("test_vit", weights=tmp_path / "other.pth")
    for encoder in (smaller, other):
        assert encoder.version != default.version
        assert not torch.allclose(encoder.encode(batch), default.encode(batch), atol=1e-4)
    torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "resnet.pth")
    resnet = [TimmEncoder("test_resnet", weights=tmp_path / "resnet.pth", img_size=s) for s in (None, 64)]
    assert resnet[0].name == "test_resnet"
    assert not torch.allclose(resnet[0].encode(batch), resnet[1].encode(batch), atol=1e-4)
    assert TimmEncoder("test_vit", weights=vit_file, device="meta")._device.type == "meta"


def test_version_is_that_of_the_weights_not_of_the_file(vit_file, tmp_path):
    from safetensors.torch import load_file

    torch.save(load_file(vit_file), tmp_path / "same.pth")
    same = TimmEncoder("test_vit", weights=tmp_path / "same.pth")
    assert same.version == TimmEncoder("test_vit", weights=vit_file).version


def test_wrong_weights_are_one_clear_error(vit_file, tmp_path):
    for wrong, file in {
        "no such file": tmp_path / "absent.safetensors",
        "not the weights of test_vit": tmp_path / "resnet.pth",
        "junk.pth": tmp_path / "junk.pth",
        "junk.safetensors": tmp_path / "junk.safetensors",
    }.items():
        torch.save(timm.create_model("test_resnet", pretrained=False).state_dict(), tmp_path / "resnet.pth")
        for name in ("junk.pth", "junk.safetensors"):
            (tmp_path / name).write_bytes(b"junk" * 100)
        with pytest.raises(RasrError, match=wrong) as error:
            TimmEncoder("test_vit", weights=str(file))
        assert "\n" not in str(error.value)
    with pytest.raises(RasrError, match="no such model"):
        TimmEncoder("vit_of_nobody")


class _Malicious:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code of a weights file was run')",))


def test_pickled_code_in_a_weights_file_is_not_run(tmp_path):
    torch.save({"x": _Malicious()}, tmp_path / "bad.pth")
    with pytest.raises(RasrError, match="not the weights of test_vit"):
        TimmEncoder("test_vit", weights=str(tmp_path / "bad.pth"))


@pytest.mark.parametrize("is_offline", [True, False])
def test_absent_weights_are_named_quickly(monkeypatch, tmp_path, is_offline):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    start = time.perf_counter()
    with pytest.raises(RasrError, match=r"vit_base_patch14_dinov2\.lvd142m.*encoder\.weights=FILE") as error:
        TimmEncoder("vit_base_patch14_dinov2.lvd142m", img_size=224)
    assert time.perf_counter() - start < pretrained._TIMEOUT + 2
    assert "\n" not in str(error.value)


def test_cached_weights_are_found_without_network(monkeypatch, vit_file):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda repo, name: str(vit_file))
    assert TimmEncoder("test_vit").version == TimmEncoder("test_vit", weights=vit_file).version
