"""Threads that share a network on a CPU."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pixelscope
from fixtures import tiny
from pixelscope import InputError
from pixelscope.endovae.inference import torch_model
from pixelscope.inference.replicas import ReplicaPool

CORES = 4


@pytest.fixture(autouse=True)
def cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this machine have four cores."""
    if torch.cuda.is_available():
        pytest.skip("networks are copied to the GPUs of this machine")
    monkeypatch.setattr("pixelscope.engine.runtime.share_of_cores", lambda devices: max(1, CORES // devices))


def threads_within(pool: ReplicaPool) -> tuple[int, int]:
    with pool.acquire():
        within = torch.get_num_threads()
    with pool.share_of_cores():
        return within, torch.get_num_threads()


@pytest.mark.parametrize(("devices", "callers", "each"), [(None, CORES, 1), (1, 1, CORES), (2, 2, 2), (3, 3, 1), (8, 8, 1)])
def test_callers_divide_the_cores(devices: int | None, callers: int, each: int) -> None:
    before, pool = torch.get_num_threads(), ReplicaPool(nn.Linear(2, 2), devices)
    assert pool.devices == callers
    with ThreadPoolExecutor(1) as other:
        assert threads_within(pool) == other.submit(threads_within, pool).result() == (each, each)
    assert torch.get_num_threads() == before


def test_so_many_cores_do_not_need_so_much_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pixelscope.engine.runtime.share_of_cores", lambda devices: 64)
    pool = ReplicaPool(nn.Linear(2, 2), None)
    assert pool.devices == 8 and threads_within(pool) == (8, 8)


def test_a_pool_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="--devices"):
        ReplicaPool(nn.Linear(2, 2), 0)


@pytest.mark.parametrize("name", ["classify", "adapt", "score", "reconstruct"])
def test_by_default_each_core_computes_other_images(
    name: str, pixelda_run: Path, endovae_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number, pixels in enumerate(tiny.pictures(16 * CORES)[0]):
        Image.fromarray(pixels).resize((40, 40)).save(images / f"{number:02d}.png")
    use: dict[str, Callable[..., Any]] = {
        "classify": lambda out, **some: pixelscope.pixelda.classify(pixelda_run, [images], out / "t.csv", **some),
        "adapt": lambda out, **some: pixelscope.pixelda.adapt(pixelda_run, images, out / "t", **some),
        "score": lambda out, **some: pixelscope.endovae.score(endovae_run, [images], out / "t.csv", **some),
        "reconstruct": lambda out, **some: pixelscope.endovae.reconstruct(endovae_run, [images], out / "t", **some),
    }
    (tmp_path / "one").mkdir()
    use[name](tmp_path / "one", devices=1)
    callers, threads = _watch(monkeypatch)
    (tmp_path / "all").mkdir()
    use[name](tmp_path / "all")
    assert len(callers) == CORES and set(threads) == {1}
    for file in (path for path in (tmp_path / "one").rglob("*.*") if path.is_file()):
        other = tmp_path / "all" / file.relative_to(tmp_path / "one")
        if file.suffix == ".png":
            np.testing.assert_allclose(np.asarray(Image.open(file), int), np.asarray(Image.open(other), int), atol=1)
        elif name == "classify":
            assert other.read_bytes() == file.read_bytes()
        else:
            assert len(other.read_text().splitlines()) == len(file.read_text().splitlines()) > 16 * CORES


def _watch(monkeypatch: pytest.MonkeyPatch) -> tuple[set[int], list[int]]:
    """Record the threads that use a network, each of which waits until all four do, and torch's threads in them."""
    callers, together, threads = set[int](), threading.Barrier(CORES, timeout=60), list[int]()
    acquire, maps = ReplicaPool.acquire, torch_model.pixel_maps

    @contextmanager
    def watched(pool: ReplicaPool) -> Iterator[Any]:
        if threading.get_ident() not in callers:
            callers.add(threading.get_ident())
            together.wait()
        with acquire(pool) as one:
            threads.append(torch.get_num_threads())
            yield one

    def measured(*arguments: Any) -> Any:
        threads.append(torch.get_num_threads())
        return maps(*arguments)

    monkeypatch.setattr(ReplicaPool, "acquire", watched)
    monkeypatch.setattr(torch_model, "pixel_maps", measured)
    return callers, threads
