"""Numbers of a step: averaged for the log, watched for those that are not finite."""

import pytest
import torch

from pixelscope.engine.monitor import FiniteGuard, Meter, StepNumbers
from pixelscope.errors import TrainingStopped


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["gradient/generator", "loss/discriminator"])
def test_the_message_names_network_and_first_step(bad: float, name: str) -> None:
    guard = FiniteGuard("train again")
    for step in range(6):
        numbers = {name: torch.tensor(bad if step >= 3 else 1.0), "loss/other": torch.tensor(1.0)}
        guard.watch(StepNumbers.pack(numbers), step)
    what, network = name.split("/")
    with pytest.raises(TrainingStopped, match=f"The {what} of the {network} is not finite at step 3"):
        guard.check()


def test_finite_numbers_pass_and_unwatched_ones_do_not_matter() -> None:
    guard = FiniteGuard("train again")
    guard.check()
    guard.watch(StepNumbers.pack({"loss/a": torch.tensor(1e30), "probability/real": torch.tensor(float("nan"))}), 0)
    guard.check()


def test_the_meter_averages_what_came_since_the_last_reading() -> None:
    meter = Meter()
    first = {"loss/a": torch.tensor(1.0), "histogram": torch.tensor([0.0, 1.0])}
    meter.add(StepNumbers.pack(first))
    meter.add(StepNumbers.pack({"loss/a": torch.tensor(4.0), "histogram": torch.tensor([1.0, 1.0]), "rare": torch.tensor(5.0)}))
    assert meter.read() == {"histogram": [0.5, 1.0], "loss/a": 2.5, "rare": 5.0}
    assert meter.read() == {}


def test_the_meter_keeps_what_is_overwritten_in_place() -> None:
    """A captured step writes its numbers to the same tensor each time."""
    meter, numbers = Meter(), StepNumbers.pack({"loss/a": torch.tensor(1.0)})
    for value in (1.0, 2.0, 6.0):
        numbers.values.fill_(value)
        meter.add(numbers)
    assert meter.read() == {"loss/a": 3.0}


def test_packed_numbers_keep_their_names_and_shapes() -> None:
    numbers = {"loss/a": torch.tensor(2.5), "histogram": torch.arange(6.0).view(2, 3)}
    unpacked = StepNumbers.pack(numbers).unpack()
    assert list(unpacked) == list(numbers)
    assert all(torch.equal(unpacked[name], value) for name, value in numbers.items())
