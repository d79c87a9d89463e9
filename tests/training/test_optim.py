"""Learning-rate schedule."""

import pytest
import torch

from rasr.errors import RasrError
from rasr.training.optim import lr_factor, make_schedule


def test_warm_up_then_constant():
    factors = [lr_factor(s, warmup_steps=4, decay="constant", total_steps=10) for s in range(6)]
    assert factors == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_cosine_ends_at_zero():
    assert lr_factor(4, warmup_steps=4, decay="cosine", total_steps=10) == 1
    assert lr_factor(7, warmup_steps=4, decay="cosine", total_steps=10) == pytest.approx(0.5)
    assert lr_factor(10, warmup_steps=4, decay="cosine", total_steps=10) == pytest.approx(0, abs=1e-12)


def test_unknown_decay_is_named():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    with pytest.raises(RasrError, match="'linear'"):
        make_schedule(optimizer, warmup_steps=0, decay="linear", total_steps=1)
