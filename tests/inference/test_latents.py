"""Kept reference latents: what the reference VAE would have given, without it."""

import json

import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import content_hash, read_image, write_png
from rasr.inference import ReferenceLatents, Restorer
from rasr.inference.latents import crop_latents, vae_fingerprint
from rasr.models import build_rasr_net, make_tiny_backbone
from tests.helpers import wake_zero_convs

SIZE = 64


@pytest.fixture(scope="module")
def net():
    net = build_rasr_net(make_tiny_backbone(seed=0))
    wake_zero_convs(net)
    return net.eval()


@pytest.fixture
def images(tmp_path):
    for i, size in enumerate([(64, 64), (48, 96), (130, 70)]):
        write_png(torch.rand(3, *size), tmp_path / "photos" / f"{i}.png")
    return {content_hash(path): path for path in sorted((tmp_path / "photos").iterdir())}


@pytest.fixture
def latents(net, images, tmp_path):
    latents = ReferenceLatents.create(tmp_path / "latents", net.fusion.vae, SIZE)
    assert latents.store(images.items(), net.fusion.vae, 2).stored == 3
    return ReferenceLatents.open(tmp_path / "latents")


def test_restoration_from_latents_equals_that_from_the_image(net, latents, images, monkeypatch):
    lq = torch.rand(3, SIZE // 4, SIZE // 4)
    restorer = Restorer(net, device="cpu")
    bare = restorer.restore(lq)
    expected = {key: restorer.restore(lq, read_image(path)) for key, path in images.items()}
    monkeypatch.setattr(net.fusion, "encode", None)  # the reference VAE must not run
    for key, sr in expected.items():
        kept = restorer.restore(lq, {"latents": latents.get(key)})
        assert (sr - bare).abs().max() > 1e-2
        torch.testing.assert_close(kept, sr, atol=2e-3, rtol=0)  # fp16 latents


def test_kept_in_half_precision_at_the_size_asked_for(net, latents, images):
    z_ref = latents.get(next(iter(images)))
    assert z_ref.shape == (1, net.backbone.vae.config.latent_channels, SIZE // 2, SIZE // 2)
    assert z_ref.dtype == torch.float16
    assert latents.get("0" * 64) is None


@pytest.mark.parametrize("lq_size", [(8, 24), (24, 8), (32, 32)])
def test_a_canvas_of_another_shape_sees_the_same_part_of_the_reference(net, latents, images, lq_size):
    restorer = Restorer(net, device="cpu")
    key, path = next(iter(images.items()))
    lq = torch.rand(3, *lq_size)
    bare = restorer.restore(lq)
    from_image, from_latents = (
        restorer.restore(lq, read_image(path)),
        restorer.restore(lq, {"latents": latents.get(key)}),
    )
    assert from_latents.shape == from_image.shape
    effect = (from_image - bare).flatten(), (from_latents - bare).flatten()
    assert torch.nn.functional.cosine_similarity(*effect, dim=0) > 0.5


@pytest.mark.parametrize(
    ("canvas", "size"),
    [((64, 64), (32, 32)), ((64, 128), (16, 32)), ((128, 64), (32, 16)), ((16, 16), (32, 32))],
)
def test_crop_keeps_the_aspect_and_the_centre(canvas, size):
    grid = torch.stack(torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij"))[None]
    cropped = crop_latents(grid, canvas)
    assert cropped.shape[-2:] == size
    assert cropped.mean() == pytest.approx(15.5)


def test_storing_again_encodes_only_what_is_new(net, latents, images, tmp_path, monkeypatch):
    write_png(torch.rand(3, 40, 40), tmp_path / "new.png")
    more = images | {content_hash(tmp_path / "new.png"): tmp_path / "new.png"}
    before = {path: path.stat().st_mtime_ns for path in latents.path.rglob("*.safetensors")}
    report = latents.store(more.items(), net.fusion.vae, 2)
    assert (report.stored, report.known, report.bad) == (1, 3, ())
    assert before.items() < {p: p.stat().st_mtime_ns for p in latents.path.rglob("*.safetensors")}.items()


def test_an_unreadable_image_is_named_and_the_rest_stored(net, images, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    latents = ReferenceLatents.create(tmp_path / "latents", net.fusion.vae, SIZE)
    report = latents.store([("ab" * 32, tmp_path / "broken.png"), *images.items()], net.fusion.vae, 8)
    assert report.stored == 3
    assert len(report.bad) == 1 and "broken.png" in report.bad[0]


def test_an_interrupted_call_goes_on(net, images, tmp_path, monkeypatch):
    latents = ReferenceLatents.create(tmp_path / "latents", net.fusion.vae, SIZE)
    write, written = latents._write, []

    def interrupted(*arguments):
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(write(*arguments))

    monkeypatch.setattr(latents, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        latents.store(images.items(), net.fusion.vae, 1)
    again = ReferenceLatents.create(tmp_path / "latents", net.fusion.vae, SIZE)
    report = again.store(images.items(), net.fusion.vae, 1)
    assert (report.stored, report.known) == (2, 1)


def test_another_vae_or_size_is_refused(net, latents):
    other = make_tiny_backbone(seed=9).vae
    with pytest.raises(RasrError, match=r"come from another VAE .* leave out latents="):
        latents.check_vae(other)
    latents.check_vae(net.fusion.vae)
    with pytest.raises(RasrError, match="another VAE or size"):
        ReferenceLatents.create(latents.path, other, SIZE)
    with pytest.raises(RasrError, match="another VAE or size"):
        ReferenceLatents.create(latents.path, net.fusion.vae, 2 * SIZE)
    with pytest.raises(RasrError, match="latent_size=63 does not fit"):
        ReferenceLatents.create(latents.path, net.fusion.vae, 63)


def test_the_fingerprint_is_of_the_encoder_and_survives_bf16():
    vae = make_tiny_backbone(seed=0).vae
    fingerprint = vae_fingerprint(vae)
    with torch.no_grad():
        vae.decoder.conv_in.weight.add_(1)
    assert vae_fingerprint(vae) == fingerprint
    assert vae_fingerprint(vae.bfloat16()) == fingerprint
    with torch.no_grad():
        vae.encoder.conv_in.weight.add_(1)
    assert vae_fingerprint(vae) != fingerprint


def test_damage_is_named(latents, images, tmp_path, caplog):
    key = next(iter(images))
    file = next(latents.path.rglob(f"{key}.safetensors"))
    file.write_bytes(file.read_bytes()[:40])
    with caplog.at_level("WARNING"):
        assert latents.get(key) is None
    assert f"{key}.safetensors is damaged" in caplog.text
    (latents.path / "latents.json").write_text(json.dumps({"vae": "x"}))
    with pytest.raises(RasrError, match=r"latents.json is damaged"):
        ReferenceLatents.open(latents.path)
    with pytest.raises(RasrError, match="is no folder of reference latents"):
        ReferenceLatents.open(tmp_path / "photos")
