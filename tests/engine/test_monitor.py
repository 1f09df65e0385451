"""Numbers of a step: averaged for the log, watched for those that are not finite."""

import pytest
import torch

from pixelscope.engine.monitor import FiniteGuard, Meter
from pixelscope.errors import TrainingStopped


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("name", ["gradient/generator", "loss/discriminator"])
def test_the_message_names_network_and_first_step(bad: float, name: str) -> None:
    guard = FiniteGuard("train again")
    for step in range(6):
        guard.watch({name: torch.tensor(bad if step >= 3 else 1.0), "loss/other": torch.tensor(1.0)}, step)
    what, network = name.split("/")
    with pytest.raises(TrainingStopped, match=f"The {what} of the {network} is not finite at step 3"):
        guard.check()


def test_finite_numbers_pass_and_unwatched_ones_do_not_matter() -> None:
    guard = FiniteGuard("train again")
    guard.check()
    guard.watch({"loss/a": torch.tensor(1e30), "probability/real": torch.tensor(float("nan"))}, 0)
    guard.check()


def test_the_meter_averages_what_came_since_the_last_reading() -> None:
    meter = Meter()
    meter.add({"loss/a": torch.tensor(1.0), "histogram": torch.tensor([0.0, 1.0])})
    meter.add({"loss/a": torch.tensor(4.0), "histogram": torch.tensor([1.0, 1.0]), "rare": torch.tensor(5.0)})
    assert meter.read() == {"histogram": [0.5, 1.0], "loss/a": 2.5, "rare": 5.0}
    assert meter.read() == {}
