"""Where the randomness of the data comes from: a stable hash, never the state of a process.

Each sample's seed depends on the run's seed, the epoch and the sample's id alone, so the sample is the
same on every rank, in every worker, after a resume and for any number of processes.
"""

import hashlib
from collections.abc import Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


def sample_seed(*parts: int | str) -> int:
    """Hash the parts, in order, to a seed in [0, 2**63).

    The same on every machine and Python version; `1` and `"1"` differ, and so do `("ab",)` and `("a", "b")`.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = f"{type(part).__name__}:{part}".encode()
        digest.update(len(text).to_bytes(8, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> 1


class SampleRandom:
    """The random stream of one sample: scalar draws from a CPU generator of its own.

    Attributes:
        generator: for the draws that are tensors (noise).
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def uniform(self, low: float, high: float) -> float:
        """Draw from [low, high)."""
        draw = torch.rand((), generator=self.generator, dtype=torch.float64).item()
        return low + (high - low) * draw

    def chance(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self.uniform(0, 1) < probability

    def integer(self, count: int) -> int:
        """Draw one of 0 .. count - 1."""
        return int(torch.randint(count, (), generator=self.generator).item())

    def choice(self, items: Sequence[Item], weights: Sequence[float] | None = None) -> Item:
        """Draw one item, by weight if weights are given."""
        if weights is None:
            return items[self.integer(len(items))]
        weights = torch.tensor(weights, dtype=torch.float64)
        return items[int(torch.multinomial(weights, 1, generator=self.generator).item())]
