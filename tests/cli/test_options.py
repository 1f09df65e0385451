"""Settings: every one is a flag; defaults < preset < file < flags; what is wrong is named, and what was meant is suggested."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic.fields import FieldInfo

from fixtures.sources import write_mnist
from pixelscope import SYSTEMS
from pixelscope.cli.app import app
from pixelscope.cli.endovae import EndoVAESources
from pixelscope.cli.options import CommonOptions, resolve_config, setting_names
from pixelscope.cli.pixelda import PixelDASources, RefineSources
from pixelscope.config import Config, ValueRange
from pixelscope.endovae.config import PRESETS as ENDOVAE_PRESETS
from pixelscope.endovae.config import EndoVAEConfig
from pixelscope.engine.config import RuntimeConfig
from pixelscope.errors import InputError
from pixelscope.pixelda.config import PRESETS, BaselineConfig, FramingNumbers, GroupBy, PixelDAConfig, preset
from pixelscope.pixelda.refinement.config import PRESETS as REFINE_PRESETS

MODELS: dict[str, type[Config]] = {"pixelda": PixelDAConfig, "baseline": BaselineConfig, "endovae": EndoVAEConfig}
TRAINING: dict[str, str] = {"pixelda": "pixelda train", "baseline": "pixelda baseline", "endovae": "endovae train"}
SIZE: dict[str, str] = {"pixelda": "data.size", "baseline": "data.size", "endovae": "prepare.size"}
SETTINGS = [(system, name) for system, model in MODELS.items() for name in setting_names(model)]


def parse(command: str, *flags: str) -> Config:
    """Return the configuration that a training command would train with."""
    _, bound, _ = app.parse_args([*command.split(), *flags], exit_on_error=False, print_error=False)
    given = bound.arguments
    system: str = "baseline" if command.endswith("baseline") else "endovae" if "endovae" in command else "pixelda"
    defaults = MODELS[system]()
    sources = given.get("sources", EndoVAESources() if system == "endovae" else PixelDASources())
    return resolve_config(given.get("settings", defaults), system, sources, given.get("common", CommonOptions()))


def train(*flags: str) -> PixelDAConfig:
    config = parse("pixelda train", *flags)
    assert isinstance(config, PixelDAConfig)
    return config


def resolved(system: str, *flags: str) -> BaselineConfig:
    config = parse(TRAINING[system], *flags)
    assert isinstance(config, BaselineConfig)
    return config


def at(config: Config, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


def field(model: type[Config], name: str) -> FieldInfo:
    *groups, last = name.split(".")
    for group in groups:
        inner = model.model_fields[group].annotation
        assert inner is not None
        model = inner
    return model.model_fields[last]


def another(value: object, kind: object) -> object:
    """Return an allowed value of a setting, unlike `value`."""
    if get_origin(kind) is Literal:
        return next(choice for choice in get_args(kind) if choice != value)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return value + 8
    if isinstance(value, float):
        return value / 2 or 0.5
    if kind == ValueRange | None:
        return (-1000.0, 400.0)
    if kind == FramingNumbers | None:
        return (8, -1, 2, 10, 20, 30)
    if kind == GroupBy | None:
        return "^(a)"
    return 5.0 if value is None else "somewhere"


def as_flag(name: str, value: object) -> list[str]:
    dashed = name.replace("_", "-")
    if isinstance(value, bool):
        group, dot, last = dashed.rpartition(".")
        return [f"--{dashed}" if value else f"--{group}{dot}no-{last}"]
    return [f"--{dashed}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]


SPATIAL = {"model.kind": "spatial", "losses.cross_entropy": 0.0, "losses.l1": 1.0}
NEEDED = {
    ("endovae", "model.kind"): {"losses.cross_entropy": 0.0, "losses.l1": 1.0},
    ("endovae", "model.stride"): SPATIAL,
    ("endovae", "model.blocks"): SPATIAL,
    ("endovae", "losses.adversarial"): {"losses.adversarial_from": 1},
}
"""Settings without which another one is refused."""


@pytest.mark.parametrize(("system", "name"), SETTINGS, ids=lambda value: value)
def test_every_setting_is_a_flag_and_sets_that_alone(system: str, name: str) -> None:
    model, needed = MODELS[system], NEEDED.get((system, name), {})
    value = 8 if name == "model.stride" else another(at(model(), name), field(model, name).annotation)
    config = parse(TRAINING[system], *as_flag(name, value), *(one for pair in needed.items() for one in as_flag(*pair)))
    assert at(config, name) == value
    changed = [other for other in setting_names(model) if at(config, other) != at(model(), other)]
    assert set(changed) == {name, *needed}


@pytest.mark.parametrize(("system", "name"), SETTINGS, ids=lambda value: value)
def test_every_setting_says_what_it_is(system: str, name: str) -> None:
    assert field(MODELS[system], name).description


@pytest.mark.parametrize("system", MODELS)
def test_summary_takes_the_same_settings(system: str) -> None:
    assert at(parse(f"summary {system}", f"--{SIZE[system]}", "64"), SIZE[system]) == 64


def test_later_layers_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("generator: {blocks: 2}\nlosses: {content: 0.5}\n")
    default, demo = PixelDAConfig(), train("--preset", "demo")
    filed = train("--preset", "demo", "--config", str(file))
    flagged = train("--preset", "demo", "--config", str(file), "--generator.blocks", "1")
    assert [config.generator.blocks for config in (default, demo, filed, flagged)] == [6, 3, 2, 1]
    assert (flagged.generator.width, flagged.losses.content) == (demo.generator.width, 0.5)
    assert flagged.generator.noise_dim == default.generator.noise_dim


def test_a_flag_with_the_default_value_still_wins(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("reuse_generated_batch: false\ngenerator: {blocks: 2}\n")
    config = train("--config", str(file), "--reuse-generated-batch", "--generator.blocks", "6")
    assert config == PixelDAConfig()


def test_none_unsets_an_optional_setting(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {group_by: '^(a)'}\noptimizer: {clip_norm: 1.0}\n")
    preset = train("--preset", "auto", "--config", str(file))
    assert preset.losses.task_bound and preset.optimizer.clip_norm and preset.data.group_by
    flags = ("--losses.task-bound", "none", "--optimizer.clip-norm", "none", "--data.group-by", "none")
    unset = train("--preset", "auto", "--config", str(file), *flags)
    assert unset.losses.task_bound is unset.optimizer.clip_norm is unset.data.group_by is None
    assert PixelDAConfig.parse({"losses": {"task_bound": "none"}}).losses.task_bound is None, "in a file, too"


def test_a_flag_may_need_a_setting_of_its_preset() -> None:
    spatial = parse("endovae train", "--preset", "spatial", "--model.stride", "8")
    assert (spatial.model.kind, spatial.model.stride) == ("spatial", 8)
    with pytest.raises(InputError, match="stride 8 has no effect on a global code"):
        parse("endovae train", "--model.stride", "8")


def test_an_adversarial_loss_may_start_when_its_preset_or_file_says(tmp_path: Path) -> None:
    flags = ("endovae train", "--losses.adversarial", "0.5")
    losses = at(parse(*flags, "--preset", "spatial-small"), "losses")
    assert (losses.adversarial, losses.adversarial_from) == (0.5, 40)
    (tmp_path / "long.yaml").write_text("training: {epochs: 5000}\n")
    late = parse(*flags, "--losses.adversarial-from", "2000", "--config", str(tmp_path / "long.yaml"))
    assert at(late, "losses.adversarial_from") == 2000
    with pytest.raises(InputError, match="give losses.adversarial_from"):
        parse(*flags)
    with pytest.raises(InputError, match="starts after 40 epochs, and training ends after 9; raise training.epochs"):
        parse(*flags, "--preset", "spatial-small", "--training.epochs", "9")


def test_shorthands_are_the_long_flags() -> None:
    short = train("--devices", "2", "--precision", "bf16-mixed", "--strict")
    assert short == train("--runtime.devices", "2", "--runtime.precision", "bf16-mixed", "--data.strict")
    assert (short.runtime.devices, short.data.strict) == (2, True)
    assert at(parse("endovae train", "--strict"), "prepare.strict") is True
    assert at(parse("endovae train", "--train-on", "both"), "split.train_on") == "both"


def test_choices_written_twice_are_the_same() -> None:
    assert choices(CommonOptions, "precision") == get_args(RuntimeConfig.model_fields["precision"].annotation)
    assert choices(EndoVAESources, "preset") == ENDOVAE_PRESETS
    assert choices(PixelDASources, "preset") == PRESETS
    assert choices(RefineSources, "preset") == REFINE_PRESETS


def choices(options: type, name: str) -> tuple[str, ...]:
    """Return the values that an option of a command may have."""
    hint = get_args(options.__annotations__[name])[0]
    return get_args(hint) if get_origin(hint) is Literal else get_args(get_args(hint)[0])


@pytest.mark.parametrize("system", ["pixelda", "baseline"])
def test_the_preset_follows_from_the_sources(system: str, tmp_path: Path) -> None:
    """MNIST and MNIST-M are what the paper's settings were tuned for; whatever else is given starts from auto."""
    digits = {"mnist": str(write_mnist(tmp_path / "digits")), "mnist-m": f"mnist-m:{tmp_path}", "folder": str(tmp_path)}
    assert resolved(system, "--source", digits["mnist"], "--target", digits["mnist-m"]).data.framing == "none"
    assert resolved(system, "--source", "demo:mnist", "--target", "demo:mnist-m").data.framing == "none"
    assert resolved(system, "--source", digits["mnist"]).data.framing == "none"
    for source, target in (("mnist", "folder"), ("folder", "mnist-m"), ("mnist-m", "mnist")):
        assert resolved(system, "--source", digits[source], "--target", digits[target]).data.framing == "match"
    named = resolved(system, "--preset", "paper", "--source", digits["mnist"], "--target", digits["folder"])
    assert named.data.framing == "none"
    (tmp_path / "mine.yaml").write_text(f"source: {digits['mnist']}\ntarget: {digits['folder']}\n")
    assert resolved(system, "--config", str(tmp_path / "mine.yaml")).data.framing == "match"


def test_weights_of_preset_usps_are_the_papers() -> None:
    losses = train("--preset", "usps").losses
    assert {losses.discriminator, losses.classifier, losses.generator_domain, losses.generator_task} == {1.0}
    assert train("--preset", "usps").optimizer.learning_rate == 2e-4


def test_a_saved_configuration_is_a_file_to_start_from(tmp_path: Path) -> None:
    config = train("--preset", "demo", "--seed", "3", "--optimizer.clip-norm", "5")
    config.save(tmp_path / "config.yaml")
    assert train("--config", str(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("generator: {bloks: 3}", "generator.blocks?"),
        ("generatr: {blocks: 3}", "generator.blocks?"),
        ("blocks: 3", "generator.blocks?"),
        ("noise-dim: 3", "generator.noise_dim?"),
        ("sede: 3", "seed?"),
        ("xyzzy: 3", "source, target, seed, data,"),
        ("1: 3", "source, target, seed, data,"),
        ("out: runs/a", "setting out"),
        ("generator: {blocks: many}", "generator.blocks must be a whole number"),
        ("generator: 3", "generator must be a group of settings"),
        ("source: 3", "source must be text, got 3"),
        ("data: {test_fraction: 1.5}", "got 1.5"),
    ],
)
def test_a_fault_in_a_file_is_named_with_the_file(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(InputError) as error:
        train("--config", str(file))
    assert str(error.value).startswith(f"{file}: ") and said in str(error.value)


def test_the_baseline_refuses_settings_of_networks_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("generator: {blocks: 3}")
    with pytest.raises(InputError, match="generator.blocks"):
        parse("pixelda baseline", "--config", str(file))


def packaged(system: str, name: str) -> dict[str, Any]:
    return SYSTEMS[system].preset(name)


@pytest.mark.parametrize("system", MODELS)
def test_preset_paper_is_the_defaults_written_out(system: str) -> None:
    values = packaged(system, "paper")
    assert MODELS[system].parse(values) == MODELS[system]()

    def names(group: dict[str, Any], prefix: str = "") -> list[str]:
        return [n for k, v in group.items() for n in (names(v, f"{prefix}{k}.") if isinstance(v, dict) else [prefix + k])]

    own = {"frames"} if system == "endovae" else {"source", "target"}
    assert {*names(values), *own} == set(setting_names(MODELS[system]))


def test_preset_paper_is_the_published_protocol() -> None:
    for system in ("pixelda", "baseline"):
        values = yaml.safe_load(yaml.safe_dump(preset(system, "paper")))
        assert values["training"]["images"] == 20 * 56_000
        assert values["optimizer"]["decay_every"] == 20_000 * values["training"]["batch_size"]


def test_the_demo_presets_see_the_same_images_in_the_same_split() -> None:
    adapted, before = train("--preset", "demo"), parse("pixelda baseline", "--preset", "demo")
    assert isinstance(before, BaselineConfig)
    assert (adapted.source, adapted.target) == ("demo:mnist", "demo:mnist-m")
    assert (adapted.source, adapted.target, adapted.data) == (before.source, before.target, before.data)


def test_resume_refuses_settings(cli: Callable[..., Any]) -> None:
    flags = ("--generator.blocks", "3", "--preset", "demo", "--seed", "1", "--precision", "32-true", "--dry-run")
    done = cli("pixelda", "train", "--resume", "somewhere", *flags)
    assert done.code == 2
    assert "--seed, --generator.blocks, --preset, --precision, --dry-run, or" in done.err


@pytest.mark.parametrize(
    ("found", "flags", "other"),
    [
        ({"target_framing": [96, -32, -32, 0, 0, 0]}, ["--target", "other"], "target photos"),
        ({"target_framing": [96, -32, -32, 0, 0, 0]}, ["--source", "other"], "source renders"),
        ({"target_framing": [96, -32, -32, 0, 0, 0]}, ["--data.size", "64"], "data.size 32"),
        ({"target_framing": [96, -32, -32, 0, 0, 0]}, ["--data.framing", "none"], "data.framing match"),
        ({"target_range": [0.0, 4095.0]}, ["--target", "other"], "target photos"),
        ({"target_range": [0.0, 4095.0]}, ["--data.range", "0", "1023"], "data.range None"),
        ({"source_range": [0.0, 4095.0]}, ["--source", "other"], "source renders"),
    ],
)
def test_what_a_run_found_in_its_images_is_not_used_for_others(
    tmp_path: Path, found: dict[str, Any], flags: list[str], other: str
) -> None:
    settings = {"source": "renders", "target": "photos", "data": {"framing": "match", **found}}
    file = tmp_path / "config.yaml"
    PixelDAConfig.parse(settings).save(file)
    (name,) = found
    with pytest.raises(InputError, match=f"data.{name}, which belongs to {re.escape(other)}"):
        train("--preset", "paper", "--config", str(file), *flags)
    same = train(
        "--preset", "paper", "--config", str(file), "--source", "renders", "--target", "photos", "--training.images", "64"
    )
    assert list(at(same, f"data.{name}")) == found[name]


def test_a_file_with_findings_takes_others_that_are_given(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    PixelDAConfig.parse({"source": "a", "target": "b", "data": {"target_range": (0, 4095)}}).save(file)
    config = train("--preset", "paper", "--config", str(file), "--target", "c", "--data.target-range", "0", "1023")
    assert config.data.target_range == (0, 1023)


def test_the_range_of_a_run_is_not_used_for_other_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    EndoVAEConfig.parse({"frames": "stores/old", "prepare": {"range": (0, 4095)}}).save(Path("config.yaml"))
    file = ("--config", "config.yaml", "--frames")
    with pytest.raises(InputError, match=r"prepare\.range, which belongs to frames stores/old; with frames other"):
        parse("endovae train", *file, "other")
    assert at(parse("endovae train", *file, "stores/old", "--seed", "1"), "prepare.range") == (0, 4095)
    assert at(parse("endovae train", *file, "other", "--prepare.range", "0", "1023"), "prepare.range") == (0, 1023)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "index.json").touch()
    assert at(parse("endovae train", *file, "store"), "frames") == "store"
