"""Parameters, shapes, cost, and the batches of the report."""

from pathlib import Path

import pytest
from torch import nn

from fixtures import tiny
from pixelscope.endovae.cost import plan_endovae
from pixelscope.engine.config import RuntimeConfig
from pixelscope.engine.cost import speed_of_all
from pixelscope.errors import InputError
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig, preset
from pixelscope.pixelda.cost import plan, rehearse, summarize
from pixelscope.pixelda.task import build_networks
from pixelscope.pixelda.training import train_pixelda


def test_parameters_of_the_report() -> None:
    summary = summarize("pixelda")
    counts = {network.name: network.parameters for network in summary.networks}
    assert counts["classifier"] == 359_290
    assert summarize("baseline").parameters == 359_290
    # By hand: fc 10*1024+1024, conv 4*64*9+64, 12 convs 64*64*9, 12 batch norms 128, conv 64*3*9+3.
    assert counts["generator"] == 11_264 + 2_368 + 12 * 36_864 + 12 * 128 + 1_731
    # By hand: convs without bias, batch norms, fc 512*4*4+1.
    assert counts["discriminator"] == 27 * 64 + 9 * (64 * 128 + 128 * 256 + 256 * 512) + 2 * (64 + 128 + 256 + 512) + 8193
    assert summary.parameters == sum(counts.values())


def test_a_judge_is_counted() -> None:
    counts = {network.name: network.parameters for network in summarize("pixelda", PixelDAConfig(judge=True)).networks}
    assert counts.pop("judge") == counts["classifier"]
    assert sum(counts.values()) == summarize("pixelda").parameters


def test_the_cost_of_a_step_is_that_of_most_steps() -> None:
    """One step in eight also updates the batch norm statistics of G's average; without an average, none does."""
    configs = [tiny.pixelda(training={"ema_half_life": images}) for images in (64, 0)]
    with_average, without = (rehearse(config, config.runtime)[1] for config in configs)
    assert with_average == without > 0


def test_forward_cost_is_what_the_layers_amount_to() -> None:
    cost = {network.name: network.gflop for network in summarize("pixelda").networks}
    assert {name: round(value, 2) for name, value in cost.items()} == {
        "generator": 0.91,
        "discriminator": 0.12,
        "classifier": 0.03,
    }


def test_layers_of_a_network_account_for_all_its_parameters() -> None:
    for network in summarize("pixelda", tiny.pixelda()).networks:
        assert sum(layer.parameters for layer in network.layers) == network.parameters
    assert summarize("pixelda").networks[1].layers[-1].output == (1,)
    assert "359,290 parameters" in summarize("pixelda").to_text()


def test_noise_and_dropout_follow_each_of_the_four_convolutions_of_d() -> None:
    kinds = [layer.kind for layer in summarize("pixelda").networks[1].layers]
    assert kinds == ["Conv2d", "BatchNorm2d", "LeakyReLU", "NoisyDropout"] * 4 + ["Linear"]
    convolutions = [m for m in build_networks(PixelDAConfig(), 10)[1].modules() if isinstance(m, nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256, 512]


def test_the_reports_batches() -> None:
    config = PixelDAConfig.parse(preset("pixelda", "paper"))
    train, test = round(70_000 * (1 - config.data.test_fraction)), round(70_000 * config.data.test_fraction)
    assert train / config.training.batch_size == 1_750
    assert -(-test // config.training.batch_size) == 438
    assert config.training.images == 20 * train
    assert plan_steps(config) == 35_000


def plan_steps(config: BaselineConfig) -> int:
    return config.training.images // config.training.batch_size


@pytest.mark.parametrize(
    ("cores", "devices", "threads", "expected"), [(2, 1, 2, 10), (2, 2, 1, 20), (2, 9, 1, 20), (8, 4, 4, 20)]
)
def test_no_more_processes_compute_at_a_time_than_there_are_cores_for(
    cores: int, devices: int, threads: int, expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelscope.engine.cost.share_of_cores", lambda devices: cores // devices)
    assert speed_of_all(10, RuntimeConfig(accelerator="cpu", devices=devices, threads=threads)) == expected


@pytest.mark.parametrize("module", ["pixelda", "endovae"])
def test_a_plan_counts_no_more_processes_than_there_are_cores_for(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixelscope.engine.cost.share_of_cores", lambda devices: max(1, 2 // devices))
    monkeypatch.setattr(f"pixelscope.{module}.cost.launch", lambda *_: (10.0, 1.0))
    runtime = {"devices": 8, "accelerator": "cpu", "threads": 1}
    if module == "pixelda":
        found = plan(tiny.pixelda(source="mnist", target="mnist-m", runtime=runtime, training={"batch_size": 16}))
    else:
        found = plan_endovae(tiny.endovae(frames=str(tiny.write_frames(tmp_path)), runtime=runtime))
    assert found.images_per_second == 20 and "one of 8 processes" in found.to_text()


def test_a_plan_says_what_a_run_would_cost() -> None:
    found = plan(tiny.pixelda(source="mnist", target="mnist-m"))
    assert found.steps == 12
    assert found.images_per_second > 0
    assert found.seconds == 96 / found.images_per_second
    assert "GFLOP per image" in found.to_text() and "source: mnist" in found.to_text()
    forward = sum(n.gflop for n in summarize("pixelda", tiny.pixelda()).networks)
    assert 2 * forward < found.gflop_per_image < 12 * forward
    assert found.to_dict()["config"]["generator"]["blocks"] == 1


def test_networks_that_no_memory_holds_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    huge = tiny.pixelda(generator={"width": 4096, "blocks": 256})
    for attempt in (lambda: plan(huge), lambda: train_pixelda(huge, run=tmp_path / "run")):
        with pytest.raises(InputError, match="GB of memory"):
            attempt()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classifier": {"width": 64}}, "classifier.width 64 has no effect"),
        ({"losses": {"task_most": 0.5}}, "losses.task_most 0.5 has no effect"),
    ],
)
def test_a_setting_without_effect_is_refused_before_anything_is_written(
    tmp_path: Path, settings: dict[str, dict[str, float]], message: str
) -> None:
    config = tiny.pixelda(source="nowhere", target="nowhere", **settings)
    with pytest.raises(InputError, match=message):
        train_pixelda(config, run=tmp_path / "run")
    with pytest.raises(InputError, match=message):
        plan(config)
    assert not (tmp_path / "run").exists()


def test_both_have_an_effect_next_to_others() -> None:
    summarize(
        "pixelda", tiny.pixelda(classifier={"kind": "residual", "width": 8}, losses={"task_bound": 0.1, "task_most": 0.5})
    )
