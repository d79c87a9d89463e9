"""Kept references: the same result as computed ones, and never the wrong ones."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from rasr.errors import RasrError
from rasr.image_io import content_hash, read_image, write_png
from rasr.inference import KeptReferences, Restorer
from rasr.models import build_rasr_net, make_tiny_backbone

SETTINGS = {"ref_size": 96, "head_width": 16, "transfer_width": 16}


def make_net(seed=0):
    torch.manual_seed(seed)  # of the untrained head
    net = build_rasr_net(make_tiny_backbone(seed=seed), fusion="correspondence", fusion_settings=SETTINGS)
    net.fusion.transfer.alpha.data.fill_(0.5)  # else a fresh transfer adds nothing
    return net.eval()


@pytest.fixture
def net():
    return make_net()


@pytest.fixture
def images(tmp_path):
    for i, size in enumerate([(40, 56), (64, 64), (30, 150)]):
        write_png(torch.rand(3, *size), tmp_path / f"{i}.png")
    return {content_hash(path): path for path in sorted(tmp_path.glob("*.png"))}


@pytest.fixture
def store(net, images, tmp_path):
    store = KeptReferences.of_net(tmp_path / "kept", net, create=True)
    report = store.store(images.items(), Restorer(net, device="cpu").keep)
    assert (report.stored, report.known, report.bad) == (3, 0, ())
    return store


def test_kept_gives_what_the_image_gives(net, images, store):
    restorer = Restorer(net, device="cpu")
    lq = torch.rand(3, 16, 20)
    for key, path in images.items():
        expected = restorer.restore(lq, read_image(path))
        assert (expected - restorer.restore(lq)).abs().max() > 1e-3
        assert torch.equal(restorer.restore(lq, store.get(key)), expected)


def test_several_at_once(net, images, store):
    restorer = Restorer(net, device="cpu")
    lq = torch.rand(3, 16, 20)
    kept = [store.get(key) for key in images]
    assert torch.equal(
        restorer.restore(lq, kept), restorer.restore(lq, [read_image(p) for p in images.values()])
    )


def test_storing_again_makes_only_what_is_missing_or_damaged(net, images, store):
    first, second, _ = images
    store.file(first).write_bytes(b"cut off")
    kept = load_file(store.file(second))
    kept["fine"][0, 0, 0, 0] = float("nan")
    save_file(kept, store.file(second))
    assert store.get(first) is None and store.get(second) is None and store.get("0" * 64) is None
    report = store.store(images.items(), Restorer(net, device="cpu").keep)
    assert (report.stored, report.known) == (2, 1)
    assert store.get(second)["fine"].isfinite().all()


def test_an_unreadable_image_is_named_and_the_rest_kept(net, images, store, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"")
    report = store.store([("ab" * 32, tmp_path / "broken.png")], Restorer(net, device="cpu").keep)
    assert report.stored == 0 and "broken.png" in report.bad[0]


def test_other_weights_are_refused(store):
    with pytest.raises(RasrError, match="was made by other weights"):
        KeptReferences.of_net(store.path, make_net(seed=1), create=False)
    other_head = make_net()
    other_head.fusion.head.coarse.weight.data.add_(1)
    with pytest.raises(RasrError, match="was made by other weights"):
        KeptReferences.of_net(store.path, other_head, create=True)
    KeptReferences.of_net(store.path, make_net(), create=False)


def test_wrong_folders_are_named(net, tmp_path):
    with pytest.raises(RasrError, match=r"kept\.json is missing"):
        KeptReferences.of_net(tmp_path / "nothing", net, create=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(RasrError, match="holds other files"):
        KeptReferences.of_net(tmp_path / "full", net, create=True)
    (tmp_path / "full" / "kept.json").write_text("{")
    with pytest.raises(RasrError, match="is damaged"):
        KeptReferences.of_net(tmp_path / "full", net, create=True)
    residual = build_rasr_net(make_tiny_backbone(seed=0))
    with pytest.raises(RasrError, match="latents=FOLDER"):
        KeptReferences.of_net(tmp_path / "kept", residual, create=True)
