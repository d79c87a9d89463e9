"""Kept references: the same result as computed ones, and never the wrong ones."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from rasr.errors import RasrError
from rasr.fusion.reference_features import crop_latents
from rasr.fusion.residual import vae_fingerprint
from rasr.image_io import content_hash, read_image, write_png
from rasr.inference import Restorer, open_kept
from rasr.models import build_rasr_net, make_tiny_backbone
from rasr.references import Reference
from tests.helpers import wake_zero_convs

SETTINGS = {"ref_size": 96, "head_width": 16, "transfer_width": 16}
SIZE = 64


def make_net(seed=0):
    torch.manual_seed(seed)  # of the untrained head
    net = build_rasr_net(make_tiny_backbone(seed=seed), fusion="correspondence", fusion_settings=SETTINGS)
    net.fusion.transfer.alpha.data.fill_(0.5)  # else a fresh transfer adds nothing
    return net.eval()


def make_residual(seed=0):
    net = build_rasr_net(make_tiny_backbone(seed=seed))
    wake_zero_convs(net)
    return net.eval()


@pytest.fixture
def net():
    return make_net()


@pytest.fixture(scope="module")
def residual():
    return make_residual()


def a_reference(path):
    return Reference(path.name, lambda: read_image(path), key=content_hash(path))


@pytest.fixture
def references(tmp_path):
    for i, size in enumerate([(40, 56), (64, 64), (30, 150)]):
        write_png(torch.rand(3, *size), tmp_path / f"{i}.png")
    return [a_reference(path) for path in sorted(tmp_path.glob("*.png"))]


def keeper(path, net, size=None):
    return Restorer(net, device="cpu", kept=open_kept(path, net, size=size))


def store(restorer, references):
    report = restorer.kept.store(references, restorer.keep)
    return report.stored, report.known, report.bad


@pytest.fixture
def kept(net, references, tmp_path):
    """A restorer whose references are kept."""
    restorer = keeper(tmp_path / "kept", net)
    assert store(restorer, references) == (3, 0, ())
    return restorer


@pytest.fixture
def latents(residual, references, tmp_path):
    restorer = keeper(tmp_path / "latents", residual, SIZE)
    assert store(restorer, references) == (3, 0, ())
    return restorer


def unread(reference):
    def fail():
        raise AssertionError("the reference was read again")

    return Reference(reference.id, fail, key=reference.key)


def test_kept_gives_what_the_image_gives(net, references, kept):
    plain = Restorer(net, device="cpu")
    lq = torch.rand(3, 16, 20)
    for reference in references:
        expected = plain.restore(lq, reference)
        assert torch.equal(plain.restore(lq, reference.read()), expected)
        assert (expected - plain.restore(lq)).abs().max() > 1e-3
        assert torch.equal(kept.restore(lq, unread(reference)), expected)
        assert torch.equal(plain.restore(lq, kept.kept.get(reference)), expected)


def test_several_at_once(net, references, kept):
    lq = torch.rand(3, 16, 20)
    expected = Restorer(net, device="cpu").restore(lq, references)
    assert torch.equal(kept.restore(lq, [unread(reference) for reference in references]), expected)


def test_storing_again_makes_only_what_is_missing_or_damaged(references, kept):
    first, second, _ = references
    file = kept.kept.file
    file(first).write_bytes(b"cut off")
    tensors = load_file(file(second))
    tensors["fine"][0, 0, 0, 0] = float("nan")
    save_file(tensors, file(second))
    nowhere = Reference("x", first.read, key="0" * 64)
    assert all(kept.kept.get(reference) is None for reference in (first, second, nowhere))
    assert store(kept, references)[:2] == (2, 1)
    assert kept.kept.get(second)["fine"].isfinite().all()


def test_a_restoration_adds_what_is_missing_and_mends_what_is_damaged(net, references, tmp_path):
    lq, (reference, *_) = torch.rand(3, 16, 20), references
    expected = Restorer(net, device="cpu").restore(lq, reference)
    for damage in (None, b"cut off"):
        restorer = keeper(tmp_path / "added", net)
        if damage:
            restorer.kept.file(reference).write_bytes(damage)
        else:
            assert not restorer.is_kept(reference)
        assert torch.equal(restorer.restore(lq, reference), expected)
        assert restorer.is_kept(reference) and restorer.kept.get(reference) is not None
    assert json.loads((tmp_path / "added/kept.json").read_text())["fusion"] == "correspondence"


@pytest.mark.parametrize("which", ["kept", "latents"])
def test_an_unreadable_image_is_named_and_the_rest_kept(which, tmp_path, request):
    restorer = request.getfixturevalue(which)
    (tmp_path / "broken.png").write_bytes(b"")
    write_png(torch.rand(3, 20, 20), tmp_path / "new.png")
    broken = Reference("b", lambda: read_image(tmp_path / "broken.png"), key="ab" * 32)
    stored, known, bad = store(restorer, [broken, a_reference(tmp_path / "new.png")])
    assert (stored, known) == (1, 0) and "broken.png" in bad[0]


def test_an_interrupted_call_goes_on(net, references, tmp_path, monkeypatch):
    restorer = keeper(tmp_path / "kept", net)
    put, calls = restorer.kept.put, []

    def interrupted(*arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(put(*arguments))

    monkeypatch.setattr(restorer.kept, "put", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store(restorer, references)
    assert store(keeper(tmp_path / "kept", net), references)[:2] == (2, 1)


def test_other_weights_are_refused(kept, tmp_path):
    path = kept.kept.path
    with pytest.raises(RasrError, match="was made by other weights"):
        open_kept(path, make_net(seed=1))
    other_head = make_net()
    other_head.fusion.head.coarse.weight.data.add_(1)
    with pytest.raises(RasrError, match="was made by other weights"):
        open_kept(path, other_head)
    with pytest.raises(RasrError, match="was made by other weights"):
        open_kept(path, make_residual())
    open_kept(path, make_net())


def test_wrong_folders_are_named(net, residual, tmp_path):
    with pytest.raises(RasrError, match=r"kept\.json is missing"):
        open_kept(tmp_path / "nothing", residual)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(RasrError, match="holds other files"):
        open_kept(tmp_path / "full", net)
    with pytest.raises(RasrError, match="is a file"):
        open_kept(tmp_path / "full" / "note.txt", net)
    for text in ("{", "[]", '{"fusion": 3, "networks": "x"}', '{"fusion": "residual", "networks": "x"}'):
        (tmp_path / "full" / "kept.json").write_text(text)
        with pytest.raises(RasrError, match=r"is damaged|other weights"):
            open_kept(tmp_path / "full", residual)


# Latents of the residual branch


def test_restoration_from_latents_equals_that_from_the_image(residual, latents, references, monkeypatch):
    lq = torch.rand(3, SIZE // 4, SIZE // 4)
    plain = Restorer(residual, device="cpu")
    bare = plain.restore(lq)
    expected = [plain.restore(lq, reference) for reference in references]
    monkeypatch.setattr(residual.fusion, "encode", None)  # the reference VAE must not run
    for reference, sr in zip(references, expected, strict=True):
        assert (sr - bare).abs().max() > 1e-2
        torch.testing.assert_close(latents.restore(lq, unread(reference)), sr, atol=2e-3, rtol=0)  # fp16


def test_kept_in_half_precision_at_the_size_asked_for(residual, latents, references):
    tensor = latents.kept.get(references[0])["latents"]
    channels = residual.backbone.vae.config.latent_channels
    assert tensor.shape == (1, channels, SIZE // 2, SIZE // 2) and tensor.dtype == torch.float16


def test_a_missing_one_falls_back_to_the_vae_and_is_not_added(residual, latents, tmp_path):
    write_png(torch.rand(3, 40, 40), tmp_path / "late.png")
    late, lq = a_reference(tmp_path / "late.png"), torch.rand(3, 16, 16)
    assert torch.equal(latents.restore(lq, late), Restorer(residual, device="cpu").restore(lq, late))
    assert not latents.is_kept(late)  # made for this photograph's tiles


@pytest.mark.parametrize("lq_size", [(8, 24), (24, 8), (32, 32)])
def test_a_canvas_of_another_shape_sees_the_same_part_of_the_reference(
    residual, latents, references, lq_size
):
    plain, lq = Restorer(residual, device="cpu"), torch.rand(3, *lq_size)
    bare = plain.restore(lq)
    from_image, from_latents = plain.restore(lq, references[1]), latents.restore(lq, references[1])
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


def test_another_vae_or_size_is_refused(residual, latents):
    path = latents.kept.path
    open_kept(path, residual)
    with pytest.raises(RasrError, match="made by other weights"):
        open_kept(path, make_residual(seed=9))
    with pytest.raises(RasrError, match=r"kept at 64 pixels, not at kept_size=128"):
        open_kept(path, residual, size=2 * SIZE)
    with pytest.raises(RasrError, match="kept_size=63 does not fit"):
        open_kept(path.parent / "other", residual, size=63)


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


def test_a_folder_of_latents_of_the_first_version_is_read(residual, latents, references, tmp_path):
    """latents.json with VAE and size; one tensor z_ref without a batch dimension per file."""
    path, lq = latents.kept.path, torch.rand(3, 16, 16)
    expected = latents.restore(lq, references[0])
    for file in path.rglob("*.safetensors"):
        save_file({"z_ref": load_file(file)["latents"][0].clone()}, file)
    (path / "kept.json").unlink()
    old = {"vae": vae_fingerprint(residual.fusion.vae), "size": SIZE}
    (path / "latents.json").write_text(json.dumps(old))
    again = keeper(path, residual)
    assert torch.equal(again.restore(lq, unread(references[0])), expected)
    assert store(again, references)[:2] == (0, 3)
    with pytest.raises(RasrError, match="made by other weights"):
        open_kept(path, make_residual(seed=9))
