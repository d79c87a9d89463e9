"""RestorationLoss: raw terms, weights in one place, clear errors."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.losses import RestorationLoss


def test_mse_is_the_mean_square():
    loss = RestorationLoss({"mse": 3.0})
    sr, gt = torch.full((2, 3, 4, 4), 0.5), torch.full((2, 3, 4, 4), 0.25)
    terms = loss(sr, gt)
    assert terms["mse"].item() == pytest.approx(0.0625)
    assert loss.total(terms).item() == pytest.approx(3 * 0.0625)


def test_zero_at_identity():
    image = torch.rand(1, 3, 8, 8)
    assert RestorationLoss({"mse": 1.0})(image, image)["mse"] == 0


def test_total_insists_on_every_term():
    loss = RestorationLoss({"mse": 1.0})
    with pytest.raises(ValueError, match="do not match"):
        loss.total({})
    with pytest.raises(ValueError, match="do not match"):
        loss.total({"mse": torch.zeros(()), "other": torch.zeros(())})


def test_unknown_and_empty_weights_are_named():
    with pytest.raises(RasrError, match="'typo'"):
        RestorationLoss({"mse": 1.0, "typo": 1.0})
    with pytest.raises(RasrError, match="every loss weight is 0"):
        RestorationLoss({"mse": 0.0})
