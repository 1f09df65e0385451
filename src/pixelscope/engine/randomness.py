"""Every random draw is a function of (seed, what for, when, rank): nothing has a state to save or restore."""

import hashlib

import torch


def derive(seed: int, *path: int | str) -> int:
    """Return a 63-bit seed for the draw named by `path`, for example (seed, "noise", step, rank)."""
    text = "/".join(str(part) for part in (seed, *path))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big") >> 1


def generator(device: torch.device | str, seed: int, *path: int | str) -> torch.Generator:
    """Return a fresh torch generator on `device` for the draw named by `path`."""
    return torch.Generator(device).manual_seed(derive(seed, *path))


class Order:
    """An endless shuffled order of `count` items: every epoch is a permutation, drawn from (seed, stream, epoch)."""

    def __init__(self, count: int, seed: int, stream: str) -> None:
        self.count, self.seed, self.stream = count, seed, stream
        self._epoch, self._permutation = -1, torch.empty(0, dtype=torch.int64)

    def take(self, start: int, size: int) -> torch.Tensor:
        """Return int64 positions, shape (size,), of the items from the `start`-th on; runs on into the next epoch."""
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
