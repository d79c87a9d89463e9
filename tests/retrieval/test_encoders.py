"""Encoders: really retrieve, identify themselves, and fail in one line."""

import logging
import time

import numpy as np
import pytest
import timm
import torch
from torch.nn import functional

from rasr import pretrained
from rasr.errors import RasrError
from rasr.retrieval import ColorGradientEncoder, RandomEncoder, TimmEncoder, encoder_from_settings
from tests.retrieval.photographs import crops_of_photographs, degrade

logger = logging.getLogger(__name__)  # `-o log_cli_level=INFO` prints what was measured


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
    with pytest.raises(RasrError, match="device='gpu' is unknown"):
        TimmEncoder("test_vit", weights=str(vit_file), img_size=96, device="gpu")


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


def small_and_original() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """64x64 images and the 256x256 crops of photographs that they come from."""
    crops = [crop for tiles in crops_of_photographs(256).values() for crop in tiles[:2]]
    small = [functional.interpolate(x[None], (64, 64), mode="bicubic", antialias=True)[0] for x in crops]
    return [image.clamp(0, 1) for image in small], crops


def test_a_small_lr_image_shows_the_model_the_frame_of_its_original(vit_file):
    """What the model sees is nearly the same picture, and so is the vector."""
    small, crops = small_and_original()
    encoder = TimmEncoder("test_vit", weights=vit_file, device="cpu")

    def seen(batch):
        return torch.stack([encoder.prepare(image) for image in batch]).flatten(1)

    cosines = functional.cosine_similarity(seen(small), seen(crops))
    logger.info("prepared pixels, cosine: %.4f, least %.4f", cosines.mean(), cosines.min())
    assert cosines.mean() > 0.9  # fine textures (grass) keep 0.67
    beside = [image.roll(8, 2) for image in small]  # another frame, an eighth of the width off
    assert functional.cosine_similarity(seen(beside), seen(crops)).mean() < cosines.mean() - 0.1
    models = {"test_vit, random weights": encoder, "color_gradient": ColorGradientEncoder()}
    for name, model in models.items():
        cosines = (model.encode(small) * model.encode(crops)).sum(1)
        logger.info("vectors of %s, cosine: %.4f, least %.4f", name, cosines.mean(), cosines.min())
        assert cosines.mean() > 0.95


@pytest.mark.network
@pytest.mark.slow
def test_dinov2_maps_a_small_lr_image_close_to_its_original():
    small, crops = small_and_original()
    encoder = TimmEncoder("vit_base_patch14_dinov2.lvd142m", img_size=224)
    cosines = encoder.encode(small) @ encoder.encode(crops).T
    own = cosines.diagonal()
    logger.info("DINOv2, cosine of LR and original: %.4f, least %.4f", own.mean(), own.min())
    assert (cosines.argmax(1) == torch.arange(len(crops))).float().mean() > 0.9


def test_random_encoder_draws_by_content_and_seed():
    encoder, batch = RandomEncoder(), images((20, 20), (20, 20), (8, 9))
    vectors = encoder.encode(batch)
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(RandomEncoder().encode(batch[1:]), vectors[1:])
    assert (vectors[0] @ vectors[1]).abs() < 0.6
    other = RandomEncoder(seed=1)
    assert other.version != encoder.version
    assert not torch.allclose(other.encode(batch), vectors)
    assert RandomEncoder(dim=8).encode(batch).shape == (3, 8)
    again = encoder_from_settings(other.settings)
    assert (again.name, again.version) == ("random", other.version)
    with pytest.raises(RasrError, match=r"encoder\.dim=1"):
        RandomEncoder(dim=1)


def test_pool_takes_the_mean_of_the_feature_map(vit_file, tmp_path):
    net = timm.create_model("test_resnet", pretrained=False)
    torch.save(net.state_dict(), tmp_path / "resnet.pth")
    batch = images((64, 64))
    head, avg = (TimmEncoder("test_resnet", weights=tmp_path / "resnet.pth", pool=p) for p in ("head", "avg"))
    with torch.inference_mode():
        features = net.eval().forward_features(torch.stack([avg.prepare(image) for image in batch]))
    expected = functional.normalize(features.mean((2, 3)), dim=1)
    torch.testing.assert_close(avg.encode(batch), expected, atol=1e-5, rtol=1e-4)
    assert head.version != avg.version
    assert encoder_from_settings(avg.settings).version == avg.version
    with pytest.raises(RasrError, match=r"encoder\.pool=avg wants a convolutional"):
        TimmEncoder("test_vit", weights=vit_file, pool="avg")
    for wrong in ({"pool": "max"}, {"precision": "fp8"}):
        with pytest.raises(RasrError, match="is unknown"):
            TimmEncoder("test_vit", weights=vit_file, **wrong)


def test_bf16_vectors_are_comparable(vit_file):
    exact = TimmEncoder("test_vit", weights=vit_file, device="cpu")
    fast = TimmEncoder("test_vit", weights=vit_file, device="cpu", precision="bf16")
    batch = images((80, 100), (60, 60))
    vectors = fast.encode(batch)
    assert vectors.dtype == torch.float32
    assert not torch.equal(vectors, exact.encode(batch))
    assert (vectors * exact.encode(batch)).sum(1).min() > 0.999
    assert fast.version == exact.version


def test_weights_that_are_gone_are_looked_for_in_the_hub(vit_file, tmp_path, monkeypatch):
    """An index that was moved to another machine names a file that is not there."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "empty"))
    settings = TimmEncoder("test_vit", weights=vit_file).settings | {"weights": str(tmp_path / "moved.pth")}
    with pytest.raises(RasrError, match="test_vit") as error:
        encoder_from_settings(settings)
    assert "moved.pth" not in str(error.value)


@pytest.mark.parametrize("option", ["dinov2", "dinov3", "clip", "vgg16", "resnet50"])
def test_shipped_encoders_exist_in_timm(compose, option):
    """Name, input size and pooling of every option fit the architecture (no weights are needed for that)."""
    cfg = compose([f"encoder={option}"], "index").encoder
    known = timm.get_pretrained_cfg(cfg.model_name)
    assert known.hf_hub_id, "timm knows where its weights are"
    kwargs = {"img_size": cfg.img_size} if known.fixed_input_size else {}
    with torch.device("meta"):
        net = timm.create_model(cfg.model_name, pretrained=False, **kwargs).eval()
        net.reset_classifier(0)
        batch = torch.zeros(1, 3, cfg.img_size, cfg.img_size)
        features = net.forward_features(batch).mean((2, 3)) if cfg.pool == "avg" else net(batch)
    assert features.shape == (1, {"vgg16": 512, "resnet50": 2048}.get(option, 768))
