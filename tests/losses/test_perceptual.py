"""LPIPS: the package's value, a distance, and a gradient that is never NaN."""

from types import SimpleNamespace

import torch

from rasr.losses.perceptual import LPIPS
from rasr.losses.vgg import LAYERS


def test_equals_the_lpips_package(vgg, images, monkeypatch):
    import lpips

    # The package builds torchvision's network, half a gigabyte with its classifier: hand it ours.
    monkeypatch.setattr("torchvision.models.vgg16", lambda **_: SimpleNamespace(features=vgg.features))
    package = lpips.LPIPS(net="vgg", verbose=False)
    expected = package(images["sr"], images["gt"], normalize=True).mean()
    found = LPIPS()(vgg(images["sr"]), vgg(images["gt"]))
    assert expected > 0.05
    torch.testing.assert_close(found, expected)


def test_is_a_distance(vgg, images):
    sr, gt, lpips = vgg(images["sr"]), vgg(images["gt"]), LPIPS()
    assert lpips(sr, sr) == 0
    assert lpips(sr, gt) > 0
    torch.testing.assert_close(lpips(sr, gt), lpips(gt, sr))
    closer = vgg(images["gt"] + 0.1 * (images["sr"] - images["gt"]))
    assert lpips(closer, gt) < lpips(sr, gt)


def test_is_the_mean_over_the_batch(vgg, images):
    lpips = LPIPS()
    each = [lpips(vgg(sr[None]), vgg(gt[None])) for sr, gt in zip(images["sr"], images["gt"], strict=True)]
    torch.testing.assert_close(lpips(vgg(images["sr"]), vgg(images["gt"])), torch.stack(each).mean())


def test_float32_under_autocast(vgg, images):
    lpips = LPIPS()
    expected = lpips(vgg(images["sr"]), vgg(images["gt"]))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = lpips(vgg(images["sr"]), vgg(images["gt"]))
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)


def test_gradient_against_finite_differences(vgg, images):
    vgg, lpips = vgg.double(), LPIPS().double()
    sr, gt = (images[name][:1, :, :16, :16].double() for name in ("sr", "gt"))
    gt_features = vgg(gt)
    function = lambda x: lpips(vgg(x), gt_features)  # noqa: E731
    assert torch.autograd.gradcheck(function, sr.requires_grad_(), fast_mode=True, atol=1e-9, rtol=1e-4)


def test_gradient_is_finite_where_no_feature_is_active():
    features = {name: torch.zeros(1, width, 2, 2, requires_grad=True) for name, width in LAYERS.items()}
    others = {name: torch.ones(1, width, 2, 2) for name, width in LAYERS.items()}
    LPIPS()(features, others).backward()
    assert all(torch.isfinite(f.grad).all() for f in features.values())


def test_nothing_of_it_is_trained_or_saved():
    lpips = LPIPS()
    assert list(lpips.parameters()) == [] and lpips.state_dict() == {}
    assert [name for name, _ in lpips.named_buffers()] == list(LAYERS)
