"""Fixtures that every test may use."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# Slow machines must not fail for being slow, and every run must try the same examples.
settings.register_profile("pixelscope", deadline=None, derandomize=True)
settings.load_profile("pixelscope")


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    """Fix the thread count of every test, whatever the one before left.

    So sums are added in one order on every machine, and threads of two processes of tests do not wait for one another.
    """
    torch.set_num_threads(int(os.environ.get("PIXELSCOPE_TEST_THREADS", "1")))


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk() -> Iterator[None]:
    """Check the descriptor in place of a sync, because no test cuts the power. Processes that tests start do sync."""
    kept, os.fsync = os.fsync, os.fstat
    yield
    os.fsync = kept


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests of whole pages and packages, so that none is left for one process at the end; skip `gpu`."""
    items.sort(key=lambda item: item.path.parent != Path(__file__).parent)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="this machine has no GPU"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Return the folder of real images, or skip."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("PIXELSCOPE_TEST_DATA", beside))
    if not (folder / "mnist").is_dir():
        pytest.skip(f"real images are absent: no {folder}/mnist (set PIXELSCOPE_TEST_DATA)")
    return folder


@pytest.fixture(scope="session")
def real_frames(shared_data: Path) -> Path:
    """Return the folder of real endoscopy frames, or skip."""
    if not (shared_data / "kvasir").is_dir():
        pytest.skip(f"real frames are absent: no {shared_data}/kvasir (set PIXELSCOPE_TEST_DATA)")
    return shared_data / "kvasir"
