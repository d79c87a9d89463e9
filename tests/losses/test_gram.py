"""The Gram loss: Eq. 4 to the letter, a distance, and finite in mixed precision."""

import numpy as np
import pytest
import torch

from rasr.errors import RasrError
from rasr.losses.gram import DEFAULT_LAYERS, GramLoss, gram_matrix


def naive(sr: np.ndarray, gt: np.ndarray, weight: float) -> float:
    """One layer of Eq. 4, written as loops; (B, C, H, W)."""
    batch, channels, height, width = sr.shape
    total = 0.0
    for image in range(batch):
        for i in range(channels):
            for j in range(channels):
                grams = [(f[image, i] * f[image, j]).sum() for f in (sr, gt)]
                total += (grams[0] - grams[1]) ** 2
    return weight / (channels * height * width) * total / batch


def test_formula():
    layers = {"relu1_2": 2.0, "relu3_3": 0.5}
    sr, gt = (
        {
            name: torch.rand(2, width, 3, 5, dtype=torch.float64)
            for name, width in (("relu1_2", 4), ("relu3_3", 7))
        }
        for _ in range(2)
    )
    expected = sum(naive(sr[name].numpy(), gt[name].numpy(), weight) for name, weight in layers.items())
    assert GramLoss(layers)(sr, gt).item() == pytest.approx(expected, rel=1e-12)


def test_default_layers_are_the_projects_choice(vgg, images):
    assert dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1.0) == DEFAULT_LAYERS
    sr, gt = vgg(images["sr"]), vgg(images["gt"])
    each = [GramLoss({name: 1.0})(sr, gt) for name in DEFAULT_LAYERS]
    torch.testing.assert_close(GramLoss()(sr, gt), torch.stack(each).sum())


def test_is_a_distance(vgg, images):
    sr, gt, gram = vgg(images["sr"]), vgg(images["gt"]), GramLoss()
    assert gram(sr, sr) == 0
    assert gram(sr, gt) > 0
    torch.testing.assert_close(gram(sr, gt), gram(gt, sr))


def test_positions_do_not_matter():
    features = {"relu1_2": torch.rand(1, 64, 6, 6, dtype=torch.float64)}
    moved = {"relu1_2": features["relu1_2"].flip(-1).roll(2, dims=-2)}
    assert GramLoss({"relu1_2": 1.0})(features, moved).item() == pytest.approx(0, abs=1e-20)


@pytest.mark.parametrize("name", [*DEFAULT_LAYERS, "relu5_3"])
def test_every_layer_weight_changes_the_value(vgg, images, name):
    sr, gt = vgg(images["sr"]), vgg(images["gt"])
    assert GramLoss({**DEFAULT_LAYERS, name: 3.0})(sr, gt) > GramLoss()(sr, gt)


def test_layers_of_weight_0_are_dropped_and_unknown_ones_named():
    assert GramLoss({"relu1_2": 1.0, "relu2_2": 0.0}).layers == {"relu1_2": 1.0}
    with pytest.raises(RasrError, match=r"loss\.gram_layers.*'relu9_9'.*relu5_3"):
        GramLoss({"relu9_9": 1.0})
    with pytest.raises(RasrError, match=r"loss\.weights\.gram=0"):
        GramLoss({"relu1_2": 0.0})


def test_finite_and_exact_under_bfloat16_autocast(vgg, images):
    gram = GramLoss()
    # Features as large as those of a trained network on a whole crop, or larger.
    sr, gt = ({k: 300 * f for k, f in vgg(images[name]).items()} for name in ("sr", "gt"))
    expected = gram(sr, gt)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = gram(sr, gt)
    assert found.dtype == torch.float32 and torch.isfinite(found)
    assert torch.equal(found, expected)
    # What the guard is for: the same matrices in half precision.
    assert not torch.isfinite(gram_matrix(sr["relu1_2"]).half()).all()
    assert gram_matrix(sr["relu1_2"].bfloat16()).dtype == torch.float32


def test_gradient_against_finite_differences(vgg, images):
    vgg, gram = vgg.double(), GramLoss()
    sr, gt = (images[name][:1, :, :16, :16].double() for name in ("sr", "gt"))
    gt_features = vgg(gt)
    function = lambda x: gram(vgg(x), gt_features)  # noqa: E731
    assert torch.autograd.gradcheck(function, sr.requires_grad_(), fast_mode=True, atol=1e-9, rtol=1e-4)


def test_gradient_of_one_layer_entry_by_entry():
    sr = {"relu1_2": torch.rand(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)}
    gt = {"relu1_2": torch.rand(2, 3, 2, 2, dtype=torch.float64)}
    gram = GramLoss({"relu1_2": 1.0})
    assert torch.autograd.gradcheck(lambda x: gram({"relu1_2": x}, gt), sr["relu1_2"])
