from itertools import chain

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch.utils.data import Dataset

from rasr.data import ResumableDataLoader, ResumableDistributedSampler
from rasr.errors import RasrError


class Echo(Dataset):
    """Returns what it is asked for: [epoch, index]."""

    def __init__(self, n):
        self.n = n

    def __len__(self):
        return self.n

    def __getitem__(self, key):
        return torch.tensor(key)


def make_loader(n=22, *, workers=0, batch_size=4, persistent=False, **sampler):
    sampler = ResumableDistributedSampler(n, **{"shuffle": True, "seed": 3, **sampler})
    return ResumableDataLoader(
        Echo(n), batch_size=batch_size, sampler=sampler, num_workers=workers, persistent_workers=persistent
    )


def read(loader, batches=None):
    """The [epoch, index] pairs of the next batches, batch by batch."""
    out = []
    for batch in loader:
        out.append(batch.tolist())
        if len(out) == batches:
            break
    return out


def epoch_of(loader, epoch):
    loader.sampler.set_epoch(epoch)
    return read(loader)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_the_ranks_share_an_epoch_without_loss(world_size):
    n = 12
    shares = [
        [i for _, i in ResumableDistributedSampler(n, world_size=world_size, rank=r, shuffle=True, seed=0)]
        for r in range(world_size)
    ]
    assert sorted(chain(*shares)) == list(range(n))


@pytest.mark.parametrize(("n", "world_size"), [(13, 4), (1, 3), (5, 2)])
def test_an_uneven_split_repeats_the_fewest_samples(n, world_size):
    shares = [
        [i for _, i in ResumableDistributedSampler(n, world_size=world_size, rank=r, shuffle=True, seed=0)]
        for r in range(world_size)
    ]
    assert {len(share) for share in shares} == {-(-n // world_size)}
    assert set(chain(*shares)) == set(range(n))


def test_order_depends_on_seed_and_epoch_and_not_on_the_process():
    def order(epoch, **settings):
        sampler = ResumableDistributedSampler(30, **{"shuffle": True, "seed": 0, **settings})
        sampler.set_epoch(epoch)
        torch.rand(epoch + 1)
        return [index for _, index in sampler]

    assert order(2) == order(2)
    assert len({tuple(order(epoch)) for epoch in range(5)} | {tuple(order(0, seed=1))}) == 6
    assert order(2, shuffle=False) == list(range(30))
    whole = order(2)
    assert order(2, world_size=2, rank=0) == whole[0::2] and order(2, world_size=2, rank=1) == whole[1::2]


def test_a_wrong_rank_is_refused():
    with pytest.raises(ValueError, match=r"rank 2 is not in 0\.\.1"):
        ResumableDistributedSampler(4, world_size=2, rank=2, shuffle=True, seed=0)


def test_indexes_carry_their_epoch():
    assert {epoch for batch in epoch_of(make_loader(), 5) for epoch, _ in batch} == {5}


def test_the_sampler_alone_resumes():
    sampler = ResumableDistributedSampler(10, shuffle=True, seed=0)
    straight = list(sampler)
    iterator = iter(sampler)
    head = [next(iterator) for _ in range(4)]
    other = ResumableDistributedSampler(10, shuffle=True, seed=0)
    other.load_state_dict(sampler.state_dict())
    assert head + list(other) == straight
    assert list(other) == straight  # and starts the next time at the start


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("world_size", "rank"), [(1, 0), (2, 0), (2, 1)])
@pytest.mark.parametrize("done", [1, 2])
def test_a_restored_loader_goes_on_where_the_other_stopped(workers, world_size, rank, done):
    settings = {"workers": workers, "world_size": world_size, "rank": rank}
    straight = [epoch_of(make_loader(**settings), epoch) for epoch in (2, 3)]
    stopped = make_loader(**settings)
    stopped.sampler.set_epoch(2)
    head = read(stopped, done)
    # Lightning saves on rank 0 and gives that state to all ranks.
    leader = make_loader(**{**settings, "rank": 0})
    leader.sampler.set_epoch(2)
    read(leader, done)
    state = leader.state_dict()
    assert state == stopped.state_dict() and state["consumed"] == done * 4

    resumed = make_loader(**settings)
    resumed.load_state_dict(state)
    iter(resumed)  # Lightning calls it an extra time, and then sets the epoch
    resumed.sampler.set_epoch(2)
    assert resumed.state_dict() == state
    assert head + read(resumed) == straight[0]
    assert epoch_of(resumed, 3) == straight[1]


def test_resuming_twice_in_one_epoch_counts_on():
    straight = epoch_of(make_loader(), 0)
    first = make_loader()
    read(first, 2)
    second = make_loader()
    second.load_state_dict(first.state_dict())
    read(second, 1)
    third = make_loader()
    third.load_state_dict(second.state_dict())
    assert read(third) == straight[3:]


def test_a_finished_epoch_leads_to_the_next():
    loader = make_loader()
    read(loader)
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict())
    assert read(resumed) == epoch_of(make_loader(), 1)


def test_a_restored_position_is_dropped_for_another_epoch():
    loader = make_loader()
    read(loader, 2)
    resumed = make_loader()
    resumed.load_state_dict(loader.state_dict())
    assert epoch_of(resumed, 4) == epoch_of(make_loader(), 4)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loop_that_is_left_early_starts_anew(workers):
    loader = make_loader(workers=workers, persistent=workers > 0)
    straight = read(make_loader())
    assert read(loader, 2) == straight[:2]
    assert read(loader) == straight
    assert len(loader) == len(straight) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"world_size": 2}, "same number of processes"),
        ({"seed": 4}, "same seed"),
        ({"n": 21}, "same data"),
    ],
)
def test_a_position_of_another_run_is_refused_mid_epoch_only(change, message):
    loader = make_loader()
    start = loader.state_dict()
    read(loader, 2)
    with pytest.raises(RasrError, match=message):
        make_loader(**change).load_state_dict(loader.state_dict())
    make_loader(**change).load_state_dict(start)


class Recorder(pl.LightningModule):
    """Trains nothing worth mentioning and keeps what it was fed."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.fed = []

    def training_step(self, batch, batch_idx):
        self.fed.append(batch.tolist())
        return self.layer(torch.ones(1, 1)).sum()

    def validation_step(self, batch, batch_idx):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(tmp_path, steps, workers, ckpt_path=None, **settings):
    module = Recorder()
    keep = ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    trainer = pl.Trainer(
        accelerator="cpu", max_steps=steps, max_epochs=-1, logger=False, callbacks=[keep],
        enable_progress_bar=False, enable_model_summary=False, **settings,
    )  # fmt: skip
    loader = make_loader(14, workers=workers, persistent=workers > 0)  # 4 batches an epoch
    trainer.fit(module, loader, make_loader(4, shuffle=False), ckpt_path=ckpt_path)
    return module.fed


@pytest.mark.parametrize("workers", [0, 2])
def test_lightning_resumes_to_the_batch_at_every_step(tmp_path, workers):
    straight = fit(tmp_path / "straight", 10, workers)
    epochs = [epoch_of(make_loader(14), epoch) for epoch in range(3)]
    assert straight == list(chain(*epochs))[:10]
    # Mid-epoch, at the last batch of an epoch, and just after one.
    for step in (2, 4, 5, 8) if workers == 0 else (6,):
        rest = fit(tmp_path / f"from{step}", 10, workers, tmp_path / "straight" / f"step={step}.ckpt")
        assert rest == straight[step:], step


def test_lightning_resumes_between_validations(tmp_path):
    settings = {"val_check_interval": 2}
    straight = fit(tmp_path / "straight", 10, 0, **settings)
    for step in (2, 3, 4):
        rest = fit(tmp_path / f"from{step}", 10, 0, tmp_path / "straight" / f"step={step}.ckpt", **settings)
        assert rest == straight[step:], step


def test_lightning_can_overfit_a_batch(tmp_path):
    fed = fit(tmp_path, 4, 0, overfit_batches=1)
    assert fed == [[0, 1, 2, 3]] * 4
