"""Counter-based randomness: every draw is a function of (seed, purpose, step, rank), so there is no state to save.

Importing this also makes the first result of torch's vector functions in a process equal to later ones.
"""

import hashlib
from dataclasses import dataclass, replace

import torch
from torch import Tensor


def _call_vector_functions_once() -> None:
    """Call each vector function on one number, in one thread.

    MKL chooses a function's code at its first call. If several threads make that call at once, one of them may run code of low
    accuracy, and the first result of a process differs from all later ones (PyTorch issue 188792).
    """
    for dtype in (torch.float32, torch.float64):
        one = torch.ones(1, dtype=dtype)
        for function in (torch.exp, torch.expm1, torch.log, torch.log10, torch.log1p, torch.sqrt, torch.rsqrt, torch.sigmoid):
            function(one)
        for function in (torch.sin, torch.cos, torch.tan, torch.tanh, torch.erf, torch.erfc):
            function(one)


_call_vector_functions_once()


def derive(seed: int, *path: int | str) -> int:
    """Return a 63-bit seed for the draw named by `path`, for example (seed, "noise", step, rank)."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") >> 1


def generator(device: torch.device | str, seed: int, *path: int | str) -> torch.Generator:
    """Return a fresh torch generator on `device` for the draw named by `path`."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


class ShuffledOrder:
    """An endless shuffled order of `count` items: every epoch is a permutation, drawn from (seed, stream, epoch)."""

    def __init__(self, count: int, seed: int, stream: str) -> None:
        self.count, self.seed, self.stream = count, seed, stream
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def take(self, start: int, size: int) -> torch.Tensor:
        """Return int64 positions, shape (size,), of the items from the `start`-th on, across epochs."""
        parts: list[torch.Tensor] = []
        while size > 0:
            epoch, offset = divmod(start, self.count)
            parts.append(self._permuted(epoch)[offset : offset + size])
            start, size = start + len(parts[-1]), size - len(parts[-1])
        return torch.cat(parts)

    def _permuted(self, epoch: int) -> torch.Tensor:
        if epoch != self._epoch:
            draw = generator("cpu", self.seed, "order", self.stream, epoch)
            self._epoch, self._permutation = epoch, torch.randperm(self.count, generator=draw)
        return self._permutation


@dataclass(frozen=True)
class StepContext:
    """Position of a training step, and its random generators."""

    images: int
    """Images of the first domain seen before this step, on all ranks."""
    step: int
    """Number of this step, from 0."""
    batch_size: int
    """Images of this step, over all ranks."""
    seed: int
    rank: int = 0
    ranks: int = 1
    device: torch.device = torch.device("cpu")
    log_now: bool = False
    """Whether this step is logged; costly diagnostics run on such steps only."""

    def generator(self, purpose: str) -> torch.Generator:
        """Return this rank's generator for `purpose`, on the training device."""
        return generator(self.device, self.seed, purpose, self.step, self.rank)

    def shared_generator(self, purpose: str) -> torch.Generator:
        """Return a CPU generator equal on all ranks, for values that `shard` divides."""
        return generator("cpu", self.seed, purpose, self.step)

    def after(self) -> "StepContext":
        """Return the context of the next step."""
        return replace(self, images=self.images + self.batch_size, step=self.step + 1)

    def shard(self, values: Tensor) -> Tensor:
        """Return this rank's shard of values for the whole batch, shape (batch_size, ...)."""
        share = self.batch_size // self.ranks
        return values[self.rank * share : (self.rank + 1) * share]
