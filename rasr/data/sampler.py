"""The order of the samples, resumable in the middle of an epoch, on any number of ranks.

:class:`ResumableDistributedSampler` decides the order and says which epoch an index belongs to;
:class:`ResumableDataLoader` counts what the training loop really received, which workers that fetch ahead
make different from what the sampler handed out. Lightning stores and restores the loader's state by itself.
"""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, DistributedSampler

from rasr.data.mixing import MixedOrder
from rasr.errors import RasrError


class ResumableDistributedSampler(DistributedSampler[tuple[int, int]]):
    """Yield (epoch, index) pairs: this rank's share of an order that depends on seed and epoch alone.

    Within an epoch no index comes twice and none is lost, with one exception: if `n` is not divisible by
    `world_size`, the first indexes of the order come again at its end, so that every rank has the
    same number of samples (with fewer, the others would wait for ever). Of several sets mixed by weight
    (`n` is a :class:`rasr.data.mixing.MixedOrder`) the same holds for every pass over a set, and the pairs
    name the pass in place of the epoch.

    It is a `DistributedSampler` so that Lightning does not put one of its own in its place.
    """

    def __init__(
        self, n: int | MixedOrder, *, world_size: int = 1, rank: int = 0, shuffle: bool, seed: int
    ) -> None:
        if not 0 <= rank < world_size:
            raise ValueError(f"rank {rank} is not in 0..{world_size - 1}")
        self.order = n if isinstance(n, MixedOrder) else MixedOrder([n])
        super().__init__(
            range(len(self.order)), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed
        )
        self.consumed = 0

    def __iter__(self) -> Iterator[tuple[int, int]]:
        first = self.consumed
        for position, pair in enumerate(self._share(self.epoch)[first:], start=first + 1):
            self.consumed = position
            yield pair
        self.consumed = 0

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch; the present epoch keeps its position (Lightning sets it on resume)."""
        if epoch != self.epoch:
            self.epoch, self.consumed = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position: the epoch and how many samples of it each rank has consumed."""
        return {
            "epoch": self.epoch,
            "consumed": self.consumed,
            "sizes": self.order.sizes,
            "counts": self.order.counts,
            "world_size": self.num_replicas,
            "seed": self.seed,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to a position; it must come from the same data, seed and number of ranks."""
        present = self.state_dict()
        for key, mend in (
            ("sizes", "train on the same data"),
            ("counts", "mix with the same weights"),
            ("world_size", "use the same number of processes"),
            ("seed", "use the same seed"),
        ):
            if state["consumed"] and state[key] != present[key]:
                raise RasrError(
                    f"cannot resume in the middle of epoch {state['epoch']}: {key} was {state[key]}, "
                    f"is now {present[key]}; {mend}, or start from weights alone"
                )
        self.epoch, self.consumed = state["epoch"], state["consumed"]

    def _share(self, epoch: int) -> list[tuple[int, int]]:
        """Return this rank's pairs in the order of an epoch."""
        order = self.order.draw(epoch, seed=self.seed, shuffle=self.shuffle)
        padded = (order * -(-self.total_size // max(1, len(order))))[: self.total_size]
        return padded[self.rank :: self.num_replicas]


class ResumableDataLoader(DataLoader):
    """A DataLoader whose position can be saved and restored to the batch, with any number of workers.

    Its sampler is a :class:`ResumableDistributedSampler`. An iteration starts at the restored position if
    there is one, else at the start of the sampler's epoch. It reads the epoch when its first batch is asked
    for, not when `iter` is called: Lightning calls `iter` before it sets the epoch.
    """

    _start = 0  # samples that the running iteration skipped, and
    _batches = 0  # batches that it handed out
    _resume: dict[str, Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        self._batches = 0
        self._start = self._seek()
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """Return the position after the last batch that was handed out."""
        if self._resume is not None:
            return dict(self._resume)
        if not isinstance(self.sampler, ResumableDistributedSampler):
            return {}  # Lightning's overfit_batches swaps the sampler
        consumed = min(self._start + self._batches * self.batch_size, len(self.sampler))
        return {**self.sampler.state_dict(), "consumed": consumed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Let the next iteration go on from a position."""
        if state and isinstance(self.sampler, ResumableDistributedSampler):
            self.sampler.load_state_dict(state)
            self._resume = dict(state)

    def _seek(self) -> int:
        """Put the sampler where the iteration starts and return how many samples that skips."""
        sampler, resume, self._resume = self.sampler, self._resume, None
        if not isinstance(sampler, ResumableDistributedSampler):
            return 0
        sampler.consumed = 0
        if resume is not None and resume["epoch"] == sampler.epoch:
            if resume["consumed"] >= len(sampler):
                sampler.set_epoch(sampler.epoch + 1)
            else:
                sampler.consumed = resume["consumed"]
        return sampler.consumed
