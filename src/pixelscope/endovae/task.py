"""EndoVAE's training step, its learning-rate schedule and early stopping."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pixelscope.data.disk_array import Pixels
from pixelscope.endovae.config import EndoVAEConfig, ScheduleConfig
from pixelscope.endovae.data import FrameBatch, to_images
from pixelscope.endovae.lite0 import load_lite0
from pixelscope.endovae.losses import (
    Posterior,
    cross_entropy_loss,
    discriminator_loss,
    mean_per_image,
    perceptual_loss,
    pixel_loss,
)
from pixelscope.endovae.metrics import Dissimilarity, ssim_mask
from pixelscope.endovae.networks import AnyDecoder, AnyEncoder, Networks, PatchDiscriminator, make_networks
from pixelscope.engine.ema import EMA
from pixelscope.engine.optimize import apply_gradients, frozen, set_learning_rate
from pixelscope.engine.runtime import to_device, to_memory_format
from pixelscope.engine.task import StepInputs, Task
from pixelscope.rng import StepContext, generator

if TYPE_CHECKING:
    from lightning_fabric import Fabric


class PlateauSchedule:
    """Lowers the learning rate on a plateau of the validation loss and ends the training on a longer one.

    For the first few hundred steps, the network decodes the mean image and its KL divergence is near 0. The counters start only
    when the KL divergence has reached `start_kl` nats, because otherwise the training would end too early. `state` contains the
    whole state.
    """

    def __init__(self, config: ScheduleConfig) -> None:
        self.config = config
        counters = ("evaluations", "started", "wait_lr", "wait_stop", "lr_drops")
        self.state: Mapping[str, Tensor] = {
            **{name: torch.zeros((), dtype=torch.float64) for name in counters},
            "best": torch.full((), torch.inf, dtype=torch.float64),
        }

    @property
    def started(self) -> bool:
        """Return whether the KL divergence has reached `start_kl`."""
        return bool(self.state["started"])

    @property
    def factor(self) -> float:
        """Return the current factor on the learning rate, before its minimum is applied."""
        return self.config.factor ** int(self.state["lr_drops"])

    @property
    def should_stop(self) -> bool:
        """Return whether the training should stop."""
        return bool(self.state["wait_stop"] >= self.config.early_stopping_patience)

    def update(self, validation_loss: float, divergence: float, learning_rate: float) -> None:
        """Update the counters after an epoch.

        Args:
            validation_loss: of the epoch, in nats per image.
            divergence: KL divergence of the validation frames in nats.
            learning_rate: of the epoch.
        """
        state = self.state
        state["evaluations"].add_(1)
        if divergence >= self.config.start_kl:
            state["started"].fill_(1)
        if validation_loss < state["best"]:
            state["best"].fill_(validation_loss)
            state["wait_lr"].zero_()
            state["wait_stop"].zero_()
        elif self.started:
            state["wait_lr"].add_(1)
            state["wait_stop"].add_(1)
        if state["wait_lr"] >= self.config.patience and learning_rate > self.config.min_learning_rate:
            state["lr_drops"].add_(1)
            state["wait_lr"].zero_()


Pass = Callable[[Tensor], Tensor]

COLLAPSED = 0.1
"""KL divergence in nats below which the latent vectors carry no information."""
COLLAPSE_EPOCHS = 30
"""Epochs after which a collapsed KL divergence raises a warning; a training often starts collapsed."""
PERCEPTUAL = (2, 4, 10)
"""Blocks of EfficientNet-Lite0 whose features the perceptual loss compares: at 1/4, 1/8 and 1/16 of the side."""
BATCH = 128
"""Frames per forward pass in evaluation."""


ADVERSARIAL = "adversarial"
"""Branch of the steps in which the adversarial loss counts."""
DECODER_RATE, DISCRIMINATOR_RATE = 0.2, 0.4
"""Factors on the learning rate while the adversarial loss counts."""
DISCRIMINATOR_BETAS = (0.5, 0.9)
"""Betas of the discriminator's Adam, as in the released code of Esser et al. 2021."""


class EndoVAETask(Task[FrameBatch]):
    """Encoder and decoder with their optimizer, schedule and moving averages; a discriminator if the loss is adversarial."""

    display_names = MappingProxyType(
        {
            "loss/total": "loss",
            "loss/reconstruction": "reconstruction",
            "loss/kl": "KL",
            "loss/adversarial": "adversarial",
            "loss/discriminator": "discriminator",
            "loss/validation_total": "validation loss",
            "loss/validation_reconstruction": "reconstruction",
            "loss/validation_kl": "KL",
            "learning_rate": "learning rate",
        }
    )

    def __init__(
        self,
        config: EndoVAEConfig,
        fabric: "Fabric",
        validation: Pixels | None = None,
        ignore_mask: Pixels | None = None,
        half_life: int = 0,
        adversarial_from: int = 0,
    ) -> None:
        """Build both networks.

        Args:
            config: of the run.
            fabric: device and precision.
            validation: uint8 frames (N, S, S, 3) that drive the schedule.
            ignore_mask: (N, S, S), nonzero where their loss ignores a pixel.
            half_life: of the moving averages, in images; 0 disables them.
            adversarial_from: images seen before the adversarial loss counts.
        """
        self.config, self.fabric = config, fabric
        self.encoder, self.decoder = build_networks(config)
        autoencoder = {"encoder": self.encoder, "decoder": self.decoder}
        self.adversarial_from = adversarial_from
        self.discriminator = build_discriminator(config) if config.losses.adversarial else None
        opponent = {} if self.discriminator is None else {"discriminator": self.discriminator}
        self.networks = {**autoencoder, **opponent}
        self.passes = {"encoder": self.encoder, "decoder": self.decoder.linear_output, **opponent}
        for network in self.networks.values():
            to_device(network, fabric.device, config.runtime.memory_format)
        self.optimizers = {"autoencoder": _adam(autoencoder, config)}
        if opponent:
            self.optimizers["discriminator"] = _adam(opponent, config, DISCRIMINATOR_BETAS)
        self.averages = {name: EMA(network, half_life) for name, network in autoencoder.items() if half_life}
        self.schedule = PlateauSchedule(config.schedule)
        self.schedule_state = self.schedule.state
        self._validation, self._ignore_mask = validation, ignore_mask
        self._dissimilarity = Dissimilarity(config.prepare.size).to(fabric.device) if config.losses.ssim else None
        self._features = load_lite0("A perceptual loss", PERCEPTUAL).to(fabric.device) if config.losses.perceptual else None

    @property
    def learning_rate(self) -> float:
        """Return the current learning rate."""
        optimizer, schedule = self.config.optimizer, self.config.schedule
        return max(optimizer.learning_rate * self.schedule.factor, min(schedule.min_learning_rate, optimizer.learning_rate))

    def inputs(self, context: StepContext) -> StepInputs:
        """Return the learning rate, the decays of the moving averages, and the noise of the latent vectors."""
        shape = (context.batch_size, self.config.code_values)
        noise = context.shard(torch.randn(shape, generator=context.shared_generator("z")))
        numbers = {"learning rate": self.learning_rate, **self.averaging(context)}
        adversarial = self.discriminator is not None and context.images >= self.adversarial_from
        return StepInputs(numbers, {"z": noise}, log_now=context.log_now, branch=ADVERSARIAL if adversarial else "")

    def compute(self, batch: FrameBatch, inputs: StepInputs) -> Mapping[str, Tensor]:
        """Train on one batch (steps 5 to 8 of the reference study)."""
        batch = replace(batch, images=to_memory_format(batch.images, self.config.runtime.memory_format))
        train = self._train_adversarially if inputs.branch == ADVERSARIAL else self._train
        numbers = train(batch, inputs.tensors["z"], inputs.numbers["learning rate"])
        self.update_averages(inputs)
        return {name: value.detach() for name, value in numbers.items()}

    def _train(self, batch: FrameBatch, noise: Tensor, learning_rate: float | Tensor) -> dict[str, Tensor]:
        _, numbers = self._losses(self.passes["encoder"], self.passes["decoder"], batch, noise)
        numbers["loss/total"].backward()
        return numbers | self._apply("autoencoder", ("encoder", "decoder"), learning_rate)

    def _train_adversarially(self, batch: FrameBatch, noise: Tensor, learning_rate: float | Tensor) -> dict[str, Tensor]:
        """Train the decoder, and then the discriminator, on the same batch; the code stays as it is."""
        assert self.discriminator is not None
        with frozen(self.encoder):
            drawn, numbers = self._losses(self.passes["encoder"], self.passes["decoder"], batch, noise)
        seen = _where_valid(drawn, batch)
        with frozen(self.discriminator):
            numbers["loss/adversarial"] = -self._judge(seen).mean()
        (numbers["loss/total"] + self.config.losses.adversarial * numbers["loss/adversarial"]).backward()
        numbers |= self._apply("autoencoder", ("decoder",), DECODER_RATE * learning_rate)
        real, fake = self._judge(torch.cat([batch.images, seen.detach()])).chunk(2)
        numbers["loss/discriminator"] = discriminator_loss(real, fake)
        numbers["loss/discriminator"].backward()
        return numbers | self._apply("discriminator", ("discriminator",), DISCRIMINATOR_RATE * learning_rate)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the mean validation loss and its two terms; the noise is the same every time."""
        if self._validation is None:
            return {}
        encoder, decoder = self._measured()
        draw = generator("cpu", self.config.seed, "z of validation")
        count, sums = len(self._validation), defaultdict[str, float](float)
        for start in range(0, count, BATCH):
            batch = self._validation_batch(slice(start, start + BATCH))
            noise = torch.randn((len(batch.images), self.config.code_values), generator=draw).to(self.fabric.device)
            for name, value in self._losses(encoder, decoder.linear_output, batch, noise)[1].items():
                sums[name] += float(value) * len(batch.images)
        means = {name.replace("loss/", "loss/validation_"): value / count for name, value in sums.items()}
        return {**means, "learning_rate": self.learning_rate}

    def monitor(self, evaluation: Mapping[str, float]) -> float | None:
        """Select the checkpoint with the lowest validation loss; none with an adversarial loss, which is no part of it."""
        loss = evaluation.get("loss/validation_total")
        return None if loss is None or self.discriminator is not None else -loss

    def on_evaluation(self, evaluation: Mapping[str, float]) -> None:
        """Update the schedule."""
        if evaluation:
            loss, divergence = evaluation["loss/validation_total"], evaluation["loss/validation_kl"]
            self.schedule.update(loss, divergence, self.learning_rate)

    def stop_reason(self) -> str | None:
        """Return why the training ends early; None to continue."""
        if not self.schedule.should_stop or self.discriminator is not None:
            return None
        patience = self.config.schedule.early_stopping_patience
        return f"Early stopping: no lower validation loss for {patience} epochs."

    def warnings(self, stats: Mapping[str, float | list[float]]) -> list[tuple[str, str]]:
        """Warn of a persistent posterior collapse."""
        divergence = stats.get("loss/validation_kl")
        if (
            not isinstance(divergence, float)
            or divergence >= COLLAPSED
            or self.schedule_state["evaluations"] <= COLLAPSE_EPOCHS
        ):
            return []
        text = f"KL {divergence:.2g} nats: the decoder ignores the latent vector; lower --losses.kl, or train on more frames."
        return [("posterior collapse", text)]

    def _validation_batch(self, rows: slice) -> FrameBatch:
        assert self._validation is not None
        images = to_images(torch.from_numpy(self._validation[rows]).to(self.fabric.device))
        if self._ignore_mask is None:
            return FrameBatch(images)
        ignored = torch.from_numpy(self._ignore_mask[rows]).to(self.fabric.device)
        return FrameBatch(images, (ignored == 0).unsqueeze(1).float())

    def _measured(self) -> Networks:
        """Return the moving averages, or the networks themselves without them."""
        if not self.averages:
            return self.encoder, self.decoder
        encoder, decoder = (self.averages[name].network for name in ("encoder", "decoder"))
        assert isinstance(encoder, AnyEncoder)
        assert isinstance(decoder, AnyDecoder)
        return encoder, decoder

    def _apply(self, name: str, networks: Sequence[str], learning_rate: float | Tensor) -> dict[str, Tensor]:
        """Step an optimizer on the gradients of some of its networks; returns their norms for the log."""
        optimizer = self.optimizers[name]
        set_learning_rate(optimizer, learning_rate)
        norms = apply_gradients(optimizer, {key: self.networks[key] for key in networks}, self.config.optimizer.clip_norm)
        return {f"gradient/{key}": norm for key, norm in norms.items()}

    def _judge(self, images: Tensor) -> Tensor:
        with self.fabric.autocast():
            return self.passes["discriminator"](images).float()

    def _losses(self, encode: Pass, decode: Pass, batch: FrameBatch, noise: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the reconstructions (N, 3, S, S) and the losses by name."""
        with self.fabric.autocast():
            parameters = encode(batch.images)
        posterior = Posterior.from_parameters(parameters)
        with self.fabric.autocast():
            output = decode(posterior.sample(noise)).float()
        reconstruction = self._reconstruction_loss(output, batch).mean()
        kl = posterior.kl().sum(1).mean()
        total = reconstruction + self.config.losses.kl * kl
        return self._drawn(output), {"loss/total": total, "loss/reconstruction": reconstruction, "loss/kl": kl}

    def _drawn(self, output: Tensor) -> Tensor:
        """Return the reconstructions (N, 3, S, S) of the decoder's linear output; those of a spatial code are not limited."""
        return output if self.config.model.kind == "spatial" else output.sigmoid()

    def _reconstruction_loss(self, output: Tensor, batch: FrameBatch) -> Tensor:
        """Return the weighted sum of the terms per frame, shape (N,), for the decoder's linear output (N, 3, S, S)."""
        weights, images, valid = self.config.losses, batch.images, batch.valid_mask
        terms = list[Tensor]()
        if weights.cross_entropy:
            terms.append(weights.cross_entropy * cross_entropy_loss(output, images, weights.reduction, valid))
        drawn = self._drawn(output)
        for weight, power in ((weights.l1, 1), (weights.mse, 2)):
            if weight:
                terms.append(weight * pixel_loss(drawn, images, power, valid))
        if self._dissimilarity is not None:
            terms.append(weights.ssim * mean_per_image(self._dissimilarity(images, drawn), ssim_mask(valid)))
        if self._features is not None:
            with torch.no_grad():
                expected = self._features(images)
            terms.append(weights.perceptual * perceptual_loss(self._features(_where_valid(drawn, batch)), expected))
        return torch.stack(terms).sum(0)


def build_networks(config: EndoVAEConfig) -> Networks:
    """Build encoder and decoder; their initial weights depend on the seed of the configuration only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", config.seed, "weights").initial_seed())
        return make_networks(config.prepare.size, **config.model.model_dump())


def build_discriminator(config: EndoVAEConfig) -> PatchDiscriminator:
    """Build the discriminator; its initial weights depend on the seed of the configuration only."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator("cpu", config.seed, "weights of the discriminator").initial_seed())
        return PatchDiscriminator()


def _where_valid(drawn: Tensor, batch: FrameBatch) -> Tensor:
    """Return reconstructions with the images' own pixels where loss and metrics ignore them."""
    return drawn if batch.valid_mask is None else torch.where(batch.valid_mask > 0, drawn, batch.images)


def _adam(
    networks: Mapping[str, torch.nn.Module], config: EndoVAEConfig, betas: tuple[float, float] | None = None
) -> torch.optim.Adam:
    """Return Adam over all parameters of `networks` together; `betas` if they are not those of the configuration."""
    parameters = [p for network in networks.values() for p in network.parameters()]
    chosen = config.optimizer
    return torch.optim.Adam(
        parameters, lr=chosen.learning_rate, betas=betas or (chosen.beta1, chosen.beta2), eps=chosen.epsilon, fused=True
    )
