"""The schedule halves at a plateau, stops after a longer one, and counts nothing before start_kl."""

from pixelscope.endovae.config import ScheduleConfig
from pixelscope.endovae.task import PlateauSchedule

CONFIG = ScheduleConfig(patience=3, early_stopping_patience=7, min_learning_rate=1e-4)


def _follow(losses: list[float], divergence: float = 5.0, config: ScheduleConfig = CONFIG) -> PlateauSchedule:
    schedule = PlateauSchedule(config)
    for loss in losses:
        schedule.update(loss, divergence, 1e-3 * schedule.factor)
    return schedule


def test_it_halves_after_so_many_epochs_without_a_lower_loss() -> None:
    assert _follow([3.0, 2.0, 2.0, 2.0]).factor == 1
    assert _follow([3.0, 2.0, 2.0, 2.0, 2.0]).factor == 0.5
    assert _follow([3.0, 2.0, *[2.0] * 6]).factor == 0.25
    assert _follow([3.0, 2.0, 2.0, 2.0, 1.9, 2.0, 2.0]).factor == 1


def test_it_ends_after_so_many_epochs_without_a_lower_loss() -> None:
    assert not _follow([2.0, *[2.0] * 6]).should_stop
    assert _follow([2.0, *[2.0] * 7]).should_stop
    assert not _follow([2.0, *[2.0] * 6, 1.0]).should_stop


def test_it_does_not_fall_under_its_floor() -> None:
    config = CONFIG.model_copy(update={"early_stopping_patience": 1000})
    schedule = _follow([2.0] * 100, config=config)
    assert 1e-3 * schedule.factor * 2 > config.min_learning_rate >= 1e-3 * schedule.factor
    assert _follow([2.0] * 200, config=config).factor == schedule.factor


def test_nothing_is_counted_before_the_start() -> None:
    schedule = _follow([2.0] * 100, divergence=0.2)
    assert not schedule.started
    assert schedule.factor == 1
    assert not schedule.should_stop
    for _ in range(3):
        schedule.update(2.0, 1.5, 1e-3)
    assert schedule.started
    assert schedule.factor == 0.5


def test_it_stays_off_the_ground_once_it_took_off() -> None:
    schedule = _follow([2.0, 2.0])
    schedule.update(2.0, 0.1, 1e-3)
    schedule.update(2.0, 0.1, 1e-3)
    assert schedule.factor == 0.5
