"""The training steps. The baseline trains T on the source. PixelDA trains D and T together, then G."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from pixelscope.data.imageset import ImageSet
from pixelscope.data.loader import DeviceImages, ShuffledStream, StepBatches, to_float, under, with_prefix
from pixelscope.engine.distributed import synchronize_batch_norm
from pixelscope.engine.ema import EMA
from pixelscope.engine.optimize import adam, apply_gradients, frozen, set_learning_rate
from pixelscope.engine.runtime import to_device, to_memory_format
from pixelscope.engine.task import StepInputs, Task
from pixelscope.pixelda import diagnostics
from pixelscope.pixelda.config import BaselineConfig, PixelDAConfig
from pixelscope.pixelda.forward import draw_noise
from pixelscope.pixelda.losses import (
    content_similarity_loss,
    discriminator_loss,
    foreground,
    generator_domain_loss,
    task_loss,
)
from pixelscope.pixelda.metrics import SourceEvaluation
from pixelscope.pixelda.networks import Discriminator, Generator, TaskNetwork, make_classifier
from pixelscope.rng import StepContext, generator

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class LabelledBatch:
    """One step's labelled images."""

    images: Tensor
    """(n, 3, S, S) in [-1, 1]."""
    labels: Tensor
    """int64 (n,)."""


class LabelledBatches(StepBatches[LabelledBatch]):
    """Shuffled batches of one labelled set."""

    def __init__(self, images: ImageSet, seed: int, device: torch.device) -> None:
        self.device = device
        self.stream = ShuffledStream(images, seed, "source", device)

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return what the batch at `context` is made of."""
        return self.stream.read(context)

    def make(self, read: Mapping[str, Tensor]) -> LabelledBatch:
        """Return the batch."""
        images, labels = self.stream.take(read)
        assert labels is not None
        return LabelledBatch(images, labels)

    def sets(self) -> dict[str, DeviceImages]:
        """Return the source."""
        return {"source": self.stream.images}


class BaselineTask(Task[LabelledBatch]):
    """T of a baseline run, with its optimizer and moving average."""

    display_names = MappingProxyType(
        {
            "loss/classifier": "T",
            "accuracy/batch_source": "accuracy source",
            "accuracy/source_test": "source test",
            "accuracy/source_validation": "source validation",
        }
    )

    def __init__(
        self, config: BaselineConfig, classes: int, fabric: "Fabric", evaluation: SourceEvaluation | None = None
    ) -> None:
        self.config, self.fabric, self.evaluation = config, fabric, evaluation
        self.classifier = to_device(build_classifier(config, classes), fabric.device, config.runtime.memory_format)
        self.networks = {"classifier": self.classifier}
        self.passes = {"classifier": self.classifier}
        self.optimizers = {"classifier": _adam(config, self.classifier)}
        half_life = config.training.ema_half_life
        self.averages = {"classifier": EMA(self.classifier, half_life)} if half_life else {}

    def inputs(self, context: StepContext) -> StepInputs:
        """Return the learning rate and what the average keeps."""
        learning_rate = self.config.optimizer.learning_rate_at(context.images)
        return StepInputs({"learning rate": learning_rate, **self.averaging(context)}, log_now=context.log_now)

    def compute(self, batch: LabelledBatch, inputs: StepInputs) -> Mapping[str, Tensor]:
        """Train T on one batch."""
        optimizer = self.optimizers["classifier"]
        set_learning_rate(optimizer, inputs.numbers["learning rate"])
        with self.fabric.autocast():
            images = to_memory_format(batch.images, self.config.runtime.memory_format)
            logits = self.passes["classifier"](images, source=True)
        loss = task_loss(logits, batch.labels)
        loss.backward()
        norms = apply_gradients(optimizer, self.networks, self.config.optimizer.clip_norm)
        self.update_averages(inputs)
        accuracy = (logits.argmax(1) == batch.labels).float().mean()
        return {"loss/classifier": loss.detach(), "gradient/classifier": norms["classifier"], "accuracy/batch_source": accuracy}

    def evaluate(self) -> dict[str, float]:
        """Return accuracy and loss of T on the source's splits."""
        averaged = self.averages.get("classifier")
        return self.evaluation.measure(self.classifier, averaged.network if averaged else None) if self.evaluation else {}

    def monitor(self, evaluation: Mapping[str, float]) -> float | None:
        """Return the source validation accuracy, which chooses the best checkpoint: the average's if there is one."""
        return evaluation.get("accuracy/source_validation_ema", evaluation.get("accuracy/source_validation"))


def build_classifier(config: BaselineConfig, classes: int) -> TaskNetwork:
    """Return T; its initial weights depend on the configuration's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", config.seed, "weights").initial_seed())
        return make_classifier(config.classifier.kind, classes, config.data.size, config.classifier.width)


@dataclass(frozen=True)
class PairedBatch:
    """Unpaired images of both domains for one step. A task never has target labels."""

    source: Tensor
    """(n, 3, S, S) in [-1, 1]."""
    labels: Tensor
    """int64 (n,)."""
    target: Tensor
    """(n, 3, S, S) in [-1, 1]."""
    mask: Tensor | None = None
    """(n, 1, S, S) in [0, 1], 1 on the source's foreground; None if no masks are given."""

    def to_memory_format(self, memory_format: str) -> "PairedBatch":
        """Return the same images in the memory format `memory_format`."""
        return replace(
            self, source=to_memory_format(self.source, memory_format), target=to_memory_format(self.target, memory_format)
        )


class PairedBatches(StepBatches[PairedBatch]):
    """Shuffled batches of both domains. Each has its own order, so aligned images are not paired."""

    def __init__(
        self, source: ImageSet, target: ImageSet, seed: int, device: torch.device, masks: ImageSet | None = None
    ) -> None:
        self.device = device
        self.source = ShuffledStream(source, seed, "source", device)
        self.target = ShuffledStream(target.without_labels(), seed, "target", device)
        self.masks = None if masks is None else torch.from_numpy(masks.in_memory()).to(device)

    def read(self, context: StepContext) -> dict[str, Tensor]:
        """Return what the batch at `context` is made of."""
        return {**with_prefix("source", self.source.read(context)), **with_prefix("target", self.target.read(context))}

    def make(self, read: Mapping[str, Tensor]) -> PairedBatch:
        """Return the batch."""
        source, labels = self.source.take(under("source", read))
        target, _ = self.target.take(under("target", read))
        assert labels is not None
        return PairedBatch(source, labels, target, self._mask(read["source/positions"]))

    def sets(self) -> dict[str, DeviceImages]:
        """Return both domains."""
        return {"source": self.source.images, "target": self.target.images}

    def _mask(self, positions: Tensor) -> Tensor | None:
        return None if self.masks is None else self.masks[positions].amax(1, keepdim=True).float() / 255


REDRAWN_TWICE = 64
"""Number of source images from which G generates twice per evaluation, to compare the predicted classes."""

BOUND_EMA = 0.98
"""Decay per step of the smoothed excess, which averages over some fifty steps."""

GROWTH = 1.02
"""Factor per step by which the task weight grows; its inverse when it falls."""

STATISTICS_EVERY = 8
"""Steps between two updates of the batch norm statistics of G's average; each costs one more pass of G."""

STATISTICS = "statistics"
"""Branch of the steps that update them."""


class PixelDATask(Task[PairedBatch]):
    """G, D and T of a run, with their optimizers and moving averages."""

    display_names = MappingProxyType(
        {
            "loss/generator": "G",
            "loss/discriminator": "D",
            "loss/classifier": "T",
            "probability/real": "D(real)",
            "probability/generated": "D(generated)",
            "gradient/generator_domain": "|dG| domain",
            "gradient/generator_task": "task",
            "accuracy/batch_source": "accuracy source",
            "accuracy/batch_generated": "generated",
            "accuracy/judge_generated": "generated, as judged",
            "layout": "layout kept",
            "accuracy/source_test": "source test",
            "accuracy/source_validation": "source validation",
            "diversity": "diversity",
            "alike": "same class for two noise samples",
        }
    )

    def __init__(
        self, config: PixelDAConfig, classes: int, fabric: "Fabric", evaluation: SourceEvaluation | None = None
    ) -> None:
        self.config, self.fabric, self.evaluation = config, fabric, evaluation
        self.generator, self.discriminator, self.classifier = build_networks(config, classes)
        self.networks = {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "classifier": self.classifier,
        }
        self.judge = build_classifier(config, classes) if config.has_judge else None
        if self.judge is not None:
            self.networks["judge"] = self.judge
        self.passes = dict(self.networks)
        for network in self.networks.values():
            to_device(network, fabric.device, config.runtime.memory_format)
            if fabric.world_size > 1:
                synchronize_batch_norm(network)
        self.optimizers = {
            "discriminator_classifier": _adam(
                config, self.discriminator, self.classifier, factors=[config.discriminator.learning_rate_factor, 1.0]
            ),
            "generator": _adam(config, self.generator),
        }
        if self.judge is not None:
            self.optimizers["judge"] = _adam(config, self.judge)
        # The weight of T's loss in the G step, and the smoothed excess of that loss over the loss on the source.
        start = {"task weight": config.losses.generator_task, "task excess": 0.0}
        self.steering = {name: torch.tensor(value, device=fabric.device) for name, value in start.items()}
        if config.losses.task_bound is not None:
            self.schedule_state = self.steering
        half_life = config.training.ema_half_life
        averaged = [name for name in ("generator", "classifier", "judge") if name in self.networks and half_life]
        self.averages = {name: EMA(self.networks[name], half_life) for name in averaged}

    def inputs(self, context: StepContext) -> StepInputs:
        """Return the learning rate, what the averages keep, z, and the generators of D's noise."""
        learning_rate = self.config.optimizer.learning_rate_at(context.images)
        draws = ["z"] if self.config.reuse_generated_batch else ["z", "z for G"]
        statistics = "generator" in self.averages and context.step % STATISTICS_EVERY == 0
        return StepInputs(
            {"learning rate": learning_rate, **self.averaging(context)},
            {purpose: self._draw_z(context, purpose) for purpose in draws},
            {purpose: context.generator(purpose) for purpose in ("noise in the D step", "noise in the G step")},
            log_now=context.log_now,
            branch=STATISTICS if statistics else "",
        )

    def compute(self, batch: PairedBatch, inputs: StepInputs) -> Mapping[str, Tensor]:
        """Train D and T on one batch, then G (step 6 of the reference study)."""
        for optimizer in self.optimizers.values():
            set_learning_rate(optimizer, inputs.numbers["learning rate"])
        batch, z = batch.to_memory_format(self.config.runtime.memory_format), inputs.tensors["z"]
        with self.fabric.autocast():
            generated = self.passes["generator"](batch.source, z)
        numbers = self._discriminator_step(batch, generated.detach(), inputs)
        if self.judge is not None:
            numbers |= self._judge_step(self.judge, batch, generated.detach())
        if inputs.log_now:
            numbers["layout"] = diagnostics.layout_kept(batch.source, generated.detach())
        if not self.config.reuse_generated_batch:
            with self.fabric.autocast():
                generated = self.passes["generator"](batch.source, inputs.tensors["z for G"])
        numbers |= self._generator_step(batch, generated, inputs)
        self.update_averages(inputs)
        if inputs.branch == STATISTICS:
            with self.averages["generator"].updating_batch_norm() as average, self.fabric.autocast():
                average(batch.source, z)
        return {name: value.detach() for name, value in numbers.items()}

    def evaluate(self) -> dict[str, float]:
        """Return accuracy and loss of T on the source, and how much generated images vary with z."""
        if self.evaluation is None:
            return {}
        averaged = self.averages.get("classifier")
        accuracies = self.evaluation.measure(self.classifier, averaged.network if averaged else None)
        images, few = (
            to_float(torch.from_numpy(self.evaluation.some(count)).to(self.fabric.device))
            for count in (REDRAWN_TWICE, diagnostics.DIVERSITY_IMAGES)
        )
        return {
            **accuracies,
            "diversity": diagnostics.diversity(self.generator, few, self.fixed_z(diagnostics.DIVERSITY_DRAWS)),
            "alike": diagnostics.alike(self.generator, self.classifier, images, self.fixed_z(2 * len(images))),
        }

    def monitor(self, evaluation: Mapping[str, float]) -> float | None:
        """Return the source validation accuracy, which chooses the best checkpoint; None if nothing is held out."""
        return evaluation.get("accuracy/source_validation_ema", evaluation.get("accuracy/source_validation"))

    def warnings(self, stats: Mapping[str, float | list[float]]) -> list[tuple[str, str]]:
        """Return (cause, sentence) for each sign of collapse, vanishing gradients, lost content or an overpowering D."""
        # The gradient of a loss of weight 0 has not vanished.
        unused = () if self.config.losses.generator_domain else ("gradient/generator_domain",)
        return diagnostics.warnings({name: value for name, value in stats.items() if name not in unused})

    def fixed_z(self, count: int) -> Tensor:
        """Return `count` draws of z that stay the same for the whole run, shape (count, noise_dim)."""
        draw = generator("cpu", self.config.seed, "fixed z")
        return draw_noise(self.config, count, draw).to(self.fabric.device)

    def _draw_z(self, context: StepContext, purpose: str) -> Tensor:
        return context.shard(draw_noise(self.config, context.batch_size, context.shared_generator(purpose)))

    def _draw_bits(self, images: Tensor, draw: torch.Generator) -> list[Tensor]:
        return self.discriminator.draw(len(images), images.device, draw)

    def _discriminator_step(self, batch: PairedBatch, generated: Tensor, inputs: StepInputs) -> dict[str, Tensor]:
        weights, discriminator, classifier = self.config.losses, self.passes["discriminator"], self.passes["classifier"]
        draw = inputs.generators["noise in the D step"]
        with self.fabric.autocast():
            # Two passes: batch norm normalises real and generated images separately, as in the paper's code.
            real_logits = discriminator(batch.target, bits=self._draw_bits(batch.target, draw))
            generated_logits = discriminator(generated, bits=self._draw_bits(generated, draw))
            source_logits = classifier(batch.source, source=True)
            adapted_logits = classifier(generated)
        d_loss = discriminator_loss(real_logits, generated_logits, weights.soft_labels)
        t_losses = {"source": task_loss(source_logits, batch.labels), "generated": task_loss(adapted_logits, batch.labels)}
        t_loss = torch.stack([loss for name, loss in t_losses.items() if weights.classifier_inputs in (name, "both")]).sum()
        (weights.discriminator * d_loss + weights.classifier * t_loss).backward()
        trained = {"discriminator": self.discriminator, "classifier": self.classifier}
        norms = apply_gradients(self.optimizers["discriminator_classifier"], trained, self.config.optimizer.clip_norm)
        return {
            "loss/discriminator": d_loss,
            "loss/classifier": t_loss,
            **{f"gradient/{name}": norm for name, norm in norms.items()},
            **self._steer(t_losses["generated"].detach() - t_losses["source"].detach()),
            **diagnostics.discriminator_stats(real_logits, generated_logits),
            **diagnostics.predictions(source_logits, adapted_logits, batch.labels),
        }

    def _judge_step(self, judge: TaskNetwork, batch: PairedBatch, generated: Tensor) -> dict[str, Tensor]:
        """Train the judge on the source, and measure it on generated images."""
        with self.fabric.autocast():
            source_logits = self.passes["judge"](batch.source)
            with torch.no_grad():
                judged = self.passes["judge"](generated)
        loss = task_loss(source_logits, batch.labels)
        loss.backward()
        norms = apply_gradients(self.optimizers["judge"], {"judge": judge}, self.config.optimizer.clip_norm)
        return {
            "loss/judge": loss,
            "gradient/judge": norms["judge"],
            "accuracy/judge_source": diagnostics.share_right(source_logits, batch.labels),
            "accuracy/judge_generated": diagnostics.share_right(judged, batch.labels),
        }

    def _steer(self, excess: Tensor) -> dict[str, Tensor]:
        """Adapt the weight of T's loss in the G step under `task_bound`; `excess` is this rank's."""
        weights = self.config.losses
        if weights.task_bound is None:
            return {}
        weight, smooth = self.steering["task weight"], self.steering["task excess"]
        smooth.lerp_(torch.as_tensor(self.fabric.all_reduce(excess, reduce_op="mean")), 1 - BOUND_EMA)
        weight.mul_(torch.where(smooth > weights.task_bound, GROWTH, 1 / GROWTH))
        weight.clamp_(weights.generator_task, max(weights.task_most, weights.generator_task))
        return {"weight/generator_task": weight.clone()}

    def _generator_step(self, batch: PairedBatch, generated: Tensor, inputs: StepInputs) -> dict[str, Tensor]:
        others = [network for name, network in self.networks.items() if name != "generator"]
        with frozen(*others):
            losses = self._generator_losses(batch, generated, inputs)
            weighted = {name: self._generator_weight(name) * loss for name, loss in losses.items()}
            total = torch.stack(list(weighted.values())).sum()
            shares = diagnostics.gradient_norms(weighted, self.generator) if inputs.log_now else {}
            total.backward()
        clip = self.config.optimizer.clip_norm
        norms = apply_gradients(self.optimizers["generator"], {"generator": self.generator}, clip)
        return {
            "loss/generator": total,
            **{f"loss/generator_{name}": loss for name, loss in losses.items()},
            "gradient/generator": norms["generator"],
            **shares,
        }

    def _generator_losses(self, batch: PairedBatch, generated: Tensor, inputs: StepInputs) -> dict[str, Tensor]:
        with self.fabric.autocast():
            bits = self._draw_bits(generated, inputs.generators["noise in the G step"])
            verdict = self.passes["discriminator"](generated, bits=bits)
            adapted_logits = self.passes["classifier"](generated)
        losses = {"domain": generator_domain_loss(verdict), "task": task_loss(adapted_logits, batch.labels)}
        if self.judge is not None and self.config.losses.semantic:
            with self.fabric.autocast():
                judged = self.passes["judge"](generated)
            losses["semantic"] = task_loss(judged, batch.labels)
        if self.config.losses.content:
            mask = foreground(batch.source) if batch.mask is None else batch.mask
            losses["content"] = content_similarity_loss(batch.source, generated, mask)
        return losses

    def _generator_weight(self, name: str) -> float | Tensor:
        weights = self.config.losses
        task = weights.generator_task if weights.task_bound is None else self.steering["task weight"]
        named = {"domain": weights.generator_domain, "task": task}
        return (named | {"semantic": weights.semantic, "content": weights.content})[name]


def build_networks(config: PixelDAConfig, classes: int) -> tuple[Generator, Discriminator, TaskNetwork]:
    """Return G, D and T; their initial weights depend on the configuration's seed alone."""
    size = config.data.size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", config.seed, "weights").initial_seed())
        g, d, t = config.generator, config.discriminator, config.classifier
        return (
            Generator(size, g.noise_dim, g.blocks, g.width, g.conditioned),
            Discriminator(size, d.width, d.noise_std, d.dropout),
            make_classifier(t.kind, classes, size, t.width, t.private_first_layer),
        )


def _adam(config: BaselineConfig, *networks: nn.Module, factors: Sequence[float] | None = None) -> torch.optim.Optimizer:
    return adam(networks, config.optimizer, weight_decay=config.optimizer.weight_decay, factors=factors)
