"""EndoVAE as a file for other programs, and for `score` without torch."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pixelscope.data.frames.store import spread
from pixelscope.endovae.anomaly.calibration import RATE, Calibration
from pixelscope.endovae.cohort import load_cohort, load_own_cohort
from pixelscope.endovae.exported import open_exported
from pixelscope.endovae.graph import WholeEndoVAE
from pixelscope.endovae.model import ScoringModel
from pixelscope.endovae.results import RESEARCH, Evaluation
from pixelscope.endovae.shipped import shipped_code
from pixelscope.endovae.trained import NETWORKS, TorchScorer, TrainedRun
from pixelscope.engine.fingerprint import fingerprint
from pixelscope.errors import InputError
from pixelscope.exchange.about import About
from pixelscope.exchange.card import Card, Port
from pixelscope.exchange.delivery import Delivered, Format, beside, deliver, require_new
from pixelscope.exchange.onnx_file import sealed
from pixelscope.exchange.onnx_graph import whole_graph
from pixelscope.exchange.parity import COMPARED, Parity, compare
from pixelscope.exchange.weights_file import write_weights
from pixelscope.runs.folder import versions
from pixelscope.runs.record import read_record

BATCH = 50


def export_scorer(run: Path, out: Path, form: Format, *, images: str | None = None, rule: str = "auto") -> Delivered:
    """Write encoder and decoder of a finished run to `out`, with card and preparation beside, once they agree with the run.

    images: a store or folder of frames to compare on; by default the run's own.
    Raises InputError as `pixelscope.export` says.
    """
    require_new(out, form)
    opened = TrainedRun(run, rule)
    calibration = opened.calibration()
    weights, config = opened.weights, opened.config
    frames, compared_on = _some(opened, images)
    about = _about(opened, calibration)

    def write(path: Path) -> None:
        if form == "onnx":
            core = WholeEndoVAE(weights.encoder, weights.decoder, about.size)
            path.write_bytes(sealed(whole_graph(core, about.size, core.OUTPUTS, about.mean, about.scale), about))
        else:
            networks = zip(NETWORKS, (weights.encoder, weights.decoder), strict=True)
            write_weights(
                path, {f"{name}.{k}": v for name, network in networks for k, v in network.state_dict().items()}, about
            )

    def agreement(path: Path) -> Parity:
        ours = TorchScorer(weights.encoder, weights.decoder, config.prepare, calibration)
        return compare(*(_maps(model, frames) for model in (ours, open_exported(path))))

    code = shipped_code(config.prepare, out.name) if form == "onnx" else ""
    files, parity = deliver(
        out, write, agreement, lambda parity: _card(opened, calibration, out, form, parity, compared_on), code
    )
    return Delivered(files, form, opened.rule, parity, compared_on, RESEARCH)


def _some(opened: TrainedRun, images: str | None) -> tuple[np.ndarray, str]:
    """Return uint8 frames (N, S, S, 3), evenly spaced over a store, and which they are: the run's, or those in `images`."""
    config = opened.config
    if images is None:
        store = load_own_cohort(opened.folder, config).store
    else:
        store = load_cohort(config.model_copy(update={"frames": images})).store
    title = "frames of the run" if images is None else f"frames in {images}"
    return store.frames[spread(np.arange(len(store)), COMPARED)], title


def _maps(model: ScoringModel, frames: np.ndarray) -> Mapping[str, np.ndarray]:
    parts = [asdict(model(frames[start : start + BATCH])) for start in range(0, len(frames), BATCH)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _about(opened: TrainedRun, calibration: Calibration) -> About:
    threshold, rate = _threshold(calibration)
    return About(
        system="endovae",
        config=opened.config.model_dump(mode="json"),
        rule=opened.rule,
        images=opened.weights.images,
        fingerprint=fingerprint(opened.weights.encoder, opened.weights.decoder),
        size=opened.config.prepare.size,
        mean=0.0,
        scale=255.0,
        calibration=calibration.model_dump(mode="json"),
        false_positive_rate=rate,
        threshold=threshold,
        note=RESEARCH,
        versions=versions(),
    )


def _threshold(calibration: Calibration) -> tuple[float | None, float | None]:
    """Return the chosen score's threshold at the usual rate; none where the calibration is too small to tell."""
    try:
        return calibration.threshold(calibration.chosen, RATE), RATE
    except InputError:
        return None, None


def _card(opened: TrainedRun, calibration: Calibration, out: Path, form: Format, parity: Parity, compared_on: str) -> Card:
    record, config = read_record(opened.folder), opened.config
    size, latent = config.prepare.size, config.model.latent
    files = {beside(out)["preparation"].name: "content area, insets and scores in NumPy; needs nothing of this package"}
    return Card(
        title=f"EndoVAE of {config.split.train_on} frames",
        file=out.name,
        format=form,
        intended_use=f"Research on anomaly detection and generation of endoscopic frames. {RESEARCH}",
        not_for="diagnosis, screening, triage or any other use in the care of a person.",
        data=record.data,
        protocol=_protocol(opened, calibration),
        results=_results(opened),
        results_note="AUROC and average precision with 95% bootstrap intervals, by `pixelscope endovae evaluate`. Trivial "
        "scores that come near say that the data are told apart by something else than disease.",
        inputs=_inputs(form, size),
        outputs=_outputs(form, size, latent),
        limits=(
            "It has seen frames of few devices and hospitals; what another camera does differently is an anomaly to it.",
            "Borders, glints and boxes laid over the picture are no tissue: prepare frames as the code beside it does.",
            f"Scores are calibrated on {calibration.count:,} healthy frames; p-values hold for frames like these.",
        ),
        parity=f"Outputs for {parity.images:,} frames ({compared_on}) differ from the run's by at most {parity.largest:.2g}.",
        versions=versions() | (versions(("onnx", "onnxscript", "onnxruntime")) if form == "onnx" else {}),
        files=files if form == "onnx" else {},
    )


def _protocol(opened: TrainedRun, calibration: Calibration) -> dict[str, str]:
    config, weights = opened.config, opened.weights
    threshold, rate = _threshold(calibration)
    flagged = "too few frames for one" if threshold is None else f"{threshold:.6g}, at a false-positive rate of {rate:g}"
    return {
        "System": "EndoVAE (Diamantis et al., IVMSP 2022)",
        "Trained on": f"{weights.images:,} images in batches of {config.training.batch_size}",
        "Checkpoint rule": opened.rule,
        "Seed": str(config.seed),
        "Anomaly score": f"{calibration.chosen}, chosen on validation frames "
        f"({', '.join(f'{count:,} {kind}' for kind, count in calibration.choice_counts.items())})",
        "Threshold": flagged,
    }


def _results(opened: TrainedRun) -> list[Mapping[str, str]]:
    if not opened.folder.evaluation.is_file():
        return []
    found = Evaluation.load(opened.folder.evaluation)
    anomaly = found.anomaly
    if anomaly is None or (found.images, found.rule) != (opened.weights.images, opened.rule):
        return []
    compared = {anomaly.chosen: anomaly.scores[anomaly.chosen], **anomaly.baselines}
    return [
        {
            "score": name if name == anomaly.chosen else f"trivial: {name}",
            "healthy frames": f"{group} ({anomaly.counts[group]:,})",
            "AUROC": str(one.auroc),
            "AP": str(one.average_precision),
        }
        for name, by in compared.items()
        for group, one in by.items()
    ]


def _inputs(form: Format, size: int) -> list[Port]:
    if form == "onnx":
        meaning = f"RGB; prepared squares of {size} pixels give the run's own numbers, other sizes are resized in the graph"
        return [Port("images", "uint8", "(N, H, W, 3), any N, H and W", "0 to 255", meaning)]
    return [Port("images", "float32", f"(N, 3, {size}, {size})", "0 to 1", "RGB; byte / 255")]


def _outputs(form: Format, size: int, latent: int) -> list[Port]:
    inner = size - 10
    reconstruction = Port("reconstruction", "float32", f"(N, 3, {size}, {size})", "0 to 1", "from the posterior's mode")
    mean = Port("mean", "float32", f"(N, {latent})", "real numbers", "the posterior's mean")
    if form != "onnx":
        return [mean, Port("log_variance", "float32", f"(N, {latent})", "real numbers", "of the posterior"), reconstruction]
    return [
        reconstruction,
        Port("error", "float32", f"(N, {size}, {size})", "0 to 1", "squared difference, mean of the colours"),
        Port("dissimilarity", "float32", f"(N, {inner}, {inner})", "0 to 2", "1 - SSIM where its window fits"),
        Port("kl", "float32", f"(N, {latent})", "nats, from 0", "divergence of each latent dimension"),
        mean,
    ]
