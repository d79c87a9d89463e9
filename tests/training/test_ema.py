"""EMA of the trainable tensors."""

from types import SimpleNamespace

import pytest
import torch

from rasr.backbones.lora import trainable_parameters
from rasr.errors import RasrError
from rasr.models import build_rasr_net, make_tiny_backbone
from rasr.models.weight_files import EMA_KEY
from rasr.training import EMA


@pytest.fixture
def module():
    return SimpleNamespace(net=build_rasr_net(make_tiny_backbone(seed=0)))


def step(ema, module, number, delta=1.0):
    for parameter in trainable_parameters(module.net).values():
        parameter.data += delta
    ema.on_train_batch_end(SimpleNamespace(global_step=number), module, None, None, 0)


def test_average_follows_the_formula(module):
    ema = EMA(decay=0.75)
    start = {n: p.detach().clone() for n, p in trainable_parameters(module.net).items()}
    ema.on_fit_start(SimpleNamespace(global_step=0), module)
    step(ema, module, 1)
    step(ema, module, 2)
    # 0.75 * (0.75 * 0 + 0.25 * 1) + 0.25 * 2
    for name, tensor in ema.average.items():
        torch.testing.assert_close(tensor, start[name] + 0.6875)


def test_holds_trainable_tensors_only_and_survives_a_checkpoint(module):
    ema = EMA(decay=0.5)
    ema.on_fit_start(SimpleNamespace(global_step=0), module)
    step(ema, module, 1)
    checkpoint = {}
    ema.on_save_checkpoint(None, module, checkpoint)
    assert set(checkpoint[EMA_KEY]) == set(trainable_parameters(module.net))
    again = EMA(decay=0.5)
    again.on_load_checkpoint(None, module, checkpoint)
    again.on_fit_start(SimpleNamespace(global_step=1), module)
    assert all(torch.equal(again.average[n], t) for n, t in ema.average.items())


def test_accumulating_batches_do_not_count(module):
    ema = EMA(decay=0.5)
    ema.on_fit_start(SimpleNamespace(global_step=0), module)
    before = {n: t.clone() for n, t in ema.average.items()}
    step(ema, module, 0)
    assert all(torch.equal(before[n], t) for n, t in ema.average.items())


def test_swap_gives_the_weights_back_even_after_an_error(module):
    ema = EMA(decay=0.9)
    ema.on_fit_start(SimpleNamespace(global_step=0), module)
    step(ema, module, 1)
    weights = {n: p.detach().clone() for n, p in trainable_parameters(module.net).items()}
    with pytest.raises(KeyError), ema.swapped(module.net):
        inside = trainable_parameters(module.net)
        assert all(torch.equal(inside[n], t) for n, t in ema.average.items())
        raise KeyError
    assert all(torch.equal(p, weights[n]) for n, p in trainable_parameters(module.net).items())


def test_zero_decay_is_the_weights(module):
    ema = EMA(decay=0)
    ema.on_fit_start(SimpleNamespace(global_step=0), module)
    step(ema, module, 1)
    assert all(torch.equal(ema.average[n], p) for n, p in trainable_parameters(module.net).items())


def test_impossible_decay_is_named():
    with pytest.raises(RasrError, match=r"ema\.decay=1"):
        EMA(decay=1)
