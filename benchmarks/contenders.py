"""What is measured: for each item its contenders, each a function that makes ready and returns what a round does.

A round does a fixed amount of work and returns nothing; `Round.units` says how much that was. Contenders are made inside
their own process (benchmarks/worker.py), so that imports, allocator settings and threads of one do not reach another.
"""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import device, fastest_convolution, ready

Work = Callable[[], object]
DIGITS, FRAMES = 8_000, 256


@dataclass(frozen=True)
class Round:
    """One contender, ready to run."""

    work: Work
    units: int
    """How many of the item's units a round does."""
    gflop: float = 0.0
    """Of a round; 0 where nobody counts them."""
    dtype: str = "float32"
    extra: dict[str, float] = field(default_factory=dict)
    """Further numbers, read after the last round."""


def random_bytes(*shape: int) -> NDArray[np.uint8]:
    """Return random uint8 values, the same for every contender."""
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def smooth_frames(count: int, size: int = 96) -> NDArray[np.uint8]:
    """Return smooth random frames, (count, size, size, 3): what images look like to an encoder of files."""
    import cv2

    small = random_bytes(count, 8, 8, 3)
    return np.stack([cv2.resize(one, (size, size), interpolation=cv2.INTER_CUBIC) for one in small])


def digit_sets() -> tuple[Any, Any]:
    """Return a source like MNIST and a target like MNIST-M, as sets of images at 32 pixels."""
    from pixelscope.data.imageset import ImageSet, Provenance

    def made(name: str, channels: int) -> ImageSet:
        labels = random_bytes(DIGITS).astype(np.int64) % 10
        return ImageSet(random_bytes(DIGITS, channels, 32, 32), Provenance(name, name), labels, tuple("0123456789"))

    return made("source", 1), made("target", 3)


def ours(task: Any, batches: Any, batch_size: int, steps: int, dtype: str) -> Round:
    """Return `steps` training steps of a task with their data, as the loop takes them."""
    from torch.utils.flop_counter import FlopCounterMode

    from pixelscope.rng import StepContext

    spent = {"data_seconds": 0.0, "step_seconds": 0.0}
    number = iter(range(10**9))

    def context() -> StepContext:
        at = next(number)
        return StepContext(at * batch_size, at, batch_size, 0, device=device())

    with FlopCounterMode(display=False) as counter:
        now = context()
        task.step(batches(now), now)

    def work() -> None:
        for _ in range(steps):
            now, began = context(), ready()
            batch = batches(now)
            fed = ready()
            task.step(batch, now)
            spent["data_seconds"] += fed - began
            spent["step_seconds"] += ready() - began

    return Round(work, batch_size * steps, counter.get_total_flops() * steps / 1e9, dtype, spent)


def pixelda_ours(precision: str = "auto") -> Round:
    """Return PixelDA's steps, preset paper."""
    from pixelscope.pixelda.config import PixelDAConfig
    from pixelscope.pixelda.task import PairedBatches, PixelDATask

    config = PixelDAConfig(source="random", target="random")
    source, target = digit_sets()
    fabric, dtype = training_fabric(precision)
    task = PixelDATask(config, 10, fabric)
    return ours(task, PairedBatches(source, target, 0, device()), config.training.batch_size, 16, dtype)


def pixelda_plain() -> Round:
    """Return the same steps, plain."""
    from benchmarks.plain.data import Digits, endless
    from benchmarks.plain.pixelda import PlainPixelDA

    model, labels = PlainPixelDA(), random_bytes(DIGITS) % 10
    source: Iterator[Any] = endless(Digits(random_bytes(DIGITS, 28, 28), labels), 32)
    target: Iterator[Any] = endless(Digits(random_bytes(DIGITS, 32, 32, 3), labels), 32)

    def work() -> None:
        for _ in range(4):
            images, marks = next(source)
            model.step(images, marks, next(target)[0])

    return Round(work, 32 * 4)


def baseline_ours() -> Round:
    """Return the baseline's steps."""
    from pixelscope.pixelda.config import BaselineConfig
    from pixelscope.pixelda.task import BaselineTask, LabelledBatches

    config = BaselineConfig(source="random")
    fabric, dtype = training_fabric("auto")
    task = BaselineTask(config, 10, fabric)
    return ours(task, LabelledBatches(digit_sets()[0], 0, device()), config.training.batch_size, 100, dtype)


def baseline_plain() -> Round:
    """Return the same steps, plain."""
    from benchmarks.plain.data import Digits, endless
    from benchmarks.plain.pixelda import PlainBaseline

    model = PlainBaseline()
    source: Iterator[Any] = endless(Digits(random_bytes(DIGITS, 28, 28), random_bytes(DIGITS) % 10), 32)

    def work() -> None:
        for _ in range(50):
            model.step(*next(source))

    return Round(work, 32 * 50)


def refinement_plain() -> Round:
    """Return the steps of a refinement, plain: batches of 128 source, generated and target images."""
    from benchmarks.plain.data import endless
    from benchmarks.plain.refinement import PlainRefinement, Views

    model = PlainRefinement()
    sets = [Views(random_bytes(DIGITS, 32, 32, 3), random_bytes(DIGITS) % 10) for _ in range(3)]
    source, generated, target = (endless(images, 128) for images in sets)
    return Round(lambda: model.step(next(source), next(generated), next(target)), 128)


def endovae_ours(precision: str = "auto", steps: int = 6, frames: int = FRAMES) -> Round:
    """Return EndoVAE's steps, preset paper, with augmentation."""
    from pixelscope.endovae.config import EndoVAEConfig
    from pixelscope.endovae.data import AugmentedBatches
    from pixelscope.endovae.task import EndoVAETask

    config = EndoVAEConfig()
    fabric, dtype = training_fabric(precision)
    task = EndoVAETask(config, fabric)
    batches = AugmentedBatches(smooth_frames(frames), None, config.augmentation, 0, device())
    return ours(task, batches, config.training.batch_size, steps, dtype)


def endovae_plain(steps: int = 3) -> Round:
    """Return the same steps, plain."""
    from benchmarks.plain.data import Frames, endless
    from benchmarks.plain.endovae import PlainEndoVAE

    model = PlainEndoVAE()
    batches: Iterator[Any] = endless(Frames(smooth_frames(FRAMES)), 128)

    def work() -> None:
        for _ in range(steps):
            model.step(next(batches))

    return Round(work, 128 * steps)


def endovae_keras() -> Round:
    """Return the same step in Keras on its torch backend, without the data."""
    from benchmarks.peers import keras_step

    step = keras_step(np.asarray(smooth_frames(128) / 255, np.float32))
    return Round(lambda: [step() for _ in range(3)], 128 * 3)


def prepare_ours() -> Round:
    """Return preparing a folder of drawn frames."""
    from pixelscope.data.frames.prepare import prepare

    folder, place = _phantom(), Path(tempfile.mkdtemp())
    number = iter(range(10**6))
    return Round(lambda: prepare([folder], out=place / str(next(number))), 96)


def prepare_plain() -> Round:
    """Return the report's preprocessing, a file at a time."""
    import cv2

    files = sorted(_phantom().glob("*/*.jpg")) or sorted(_phantom().glob("*/*.png"))
    cv2.setNumThreads(1)

    def one(path: Path) -> NDArray[np.uint8]:
        image = np.asarray(cv2.imread(str(path)))
        grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
        _, mask = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        x, y, w, h = cv2.boundingRect(max(contours, key=cv2.contourArea))
        crop, side = image[y : y + h, x : x + w], min(w, h)
        top, left = (h - side) // 2, (w - side) // 2
        square = crop[top : top + side, left : left + side]
        return np.asarray(cv2.resize(square, (96, 96), interpolation=cv2.INTER_AREA), np.uint8)

    return Round(lambda: np.stack([one(path) for path in files]), len(files))


def accuracy_ours() -> Round:
    """Return T's answers on a test set."""
    from pixelscope.files import keep_heap
    from pixelscope.pixelda.metrics import logits_of
    from pixelscope.pixelda.networks import Classifier

    keep_heap()
    images, model = random_bytes(DIGITS, 3, 32, 32), Classifier().to(device())
    return Round(lambda: logits_of(model, images), DIGITS)


def accuracy_plain() -> Round:
    """Return the same through a DataLoader."""
    from torch.utils.data import DataLoader

    from benchmarks.plain.data import Digits
    from benchmarks.plain.pixelda import classifier

    model = classifier().eval().to(device())
    loader = DataLoader(Digits(random_bytes(DIGITS, 32, 32, 3), random_bytes(DIGITS)), batch_size=32)

    @torch.no_grad()
    def work() -> None:
        for images, _ in loader:
            model(images.to(device()))

    return Round(work, DIGITS)


def quality_ours() -> Round:
    """Return PSNR and SSIM of a batch of reconstructions."""
    from pixelscope.endovae.metrics import pixel_maps

    original, decoded = (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255 for frames in _pairs())

    def work() -> None:
        pixel_maps(original, decoded).quality()

    return Round(work, 64)


def quality_plain() -> Round:
    """Return the same by scikit-image, a frame at a time."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    original, decoded = (frames.astype(np.float64) / 255 for frames in _pairs())
    look: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

    def work() -> None:
        for a, b in zip(original, decoded, strict=True):
            peak_signal_noise_ratio(a, b, data_range=1)
            structural_similarity(a, b, channel_axis=2, data_range=1, **look)

    return Round(work, 64)


def _pairs() -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    frames = smooth_frames(64)
    return frames, np.roll(frames, 1, axis=0)


def _phantom() -> Path:
    from pixelscope.data.phantom import write_phantom

    place = Path(tempfile.gettempdir()) / "pixelscope-benchmarks-phantom-96"
    return place if place.exists() else write_phantom(place, normal=64, polyps=32, seed=0)


def training_fabric(precision: str) -> tuple[Any, str]:
    """Return what a training runs on, chosen as it would choose, and the type that it computes in."""
    from lightning_fabric import Fabric

    from pixelscope.engine.config import RuntimeConfig
    from pixelscope.engine.runtime import resolve_runtime
    from pixelscope.files import keep_heap

    runtime = resolve_runtime(RuntimeConfig.model_validate({"precision": precision}))
    if runtime.accelerator == "cpu":
        keep_heap()
    fabric = Fabric(accelerator=runtime.accelerator, devices=1, precision=runtime.precision)  # type: ignore[arg-type]
    return fabric, "bfloat16" if runtime.precision == "bf16-mixed" else "float32"


def pixelda_ours_float32() -> Round:
    """Return PixelDA's steps in float32."""
    return pixelda_ours("32-true")


def endovae_ours_float32() -> Round:
    """Return EndoVAE's steps in float32."""
    return endovae_ours("32-true", steps=3)


def endovae_epoch_ours() -> Round:
    """Return an epoch of EndoVAE."""
    return endovae_ours(steps=FRAMES * 3 // 128)


def endovae_epoch_plain() -> Round:
    """Return the same epoch, plain."""
    return endovae_plain(steps=FRAMES * 3 // 128)


def machine_bfloat16() -> Round:
    """Return one large convolution again and again, in bfloat16: what the machine can do at this moment."""
    return _machine("bfloat16")


def machine_float32() -> Round:
    """Return the same in float32."""
    return _machine("float32")


def _machine(dtype: str) -> Round:
    convolution, gflop = fastest_convolution(dtype)

    @torch.no_grad()
    def work() -> None:
        for _ in range(10):
            convolution()

    return Round(work, 10, 10 * gflop, dtype)


def classify_torch() -> Round:
    """Return T's answers on 70,000 digits of 28 x 28 from an array, through torch."""
    from pixelscope.files import keep_heap
    from pixelscope.imaging.resize import resize
    from pixelscope.pixelda.metrics import logits_of
    from pixelscope.pixelda.networks import Classifier

    keep_heap()
    digits, model = random_bytes(70_000, 1, 28, 28), Classifier()
    return Round(lambda: logits_of(model, resize(digits, 32)), len(digits))


def classify_onnxruntime() -> Round:
    """Return the same through onnxruntime, resized inside the graph."""
    from pixelscope.data.loader import to_float
    from pixelscope.pixelda.networks import Classifier

    class Whole(torch.nn.Module):
        """T with what comes before it."""

        def __init__(self) -> None:
            super().__init__()
            self.classifier = Classifier()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """Return logits of uint8 images (N, 1, 28, 28)."""
            resized = torch.nn.functional.interpolate(images.float(), (32, 32), mode="bilinear").round()
            return self.classifier(to_float(resized))

    digits = random_bytes(70_000, 1, 28, 28)
    session = exported(Whole(), torch.from_numpy(digits[:2]))
    starts = range(0, len(digits), 100)
    return Round(lambda: [session.run(None, {"inputs": digits[start : start + 100]}) for start in starts], len(digits))


def reconstruct_torch() -> Round:
    """Return reconstructions of frames through torch."""
    from pixelscope.endovae.data import as_channels_first, to_unit
    from pixelscope.files import keep_heap

    keep_heap()
    frames, model = as_channels_first(smooth_frames(FRAMES)), _autoencoder()

    @torch.no_grad()
    def work() -> None:
        for part in frames.split(32):
            model(to_unit(part))

    return Round(work, FRAMES)


def reconstruct_onnxruntime() -> Round:
    """Return the same through onnxruntime."""
    frames = np.ascontiguousarray(smooth_frames(FRAMES).transpose(0, 3, 1, 2)).astype(np.float32) / 255
    session = exported(_autoencoder(), torch.from_numpy(frames[:2]))
    return Round(lambda: [session.run(None, {"inputs": part}) for part in np.split(frames, FRAMES // 32)], FRAMES)


def exported(model: torch.nn.Module, example: torch.Tensor) -> Any:
    """Return an onnxruntime session of `model`, its only input named `inputs`, on as many threads as torch has."""
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        shapes = ({0: torch.export.Dim("n")},)
        torch.onnx.export(model.eval(), (example,), path, dynamo=True, dynamic_shapes=shapes, input_names=["inputs"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _autoencoder() -> torch.nn.Module:
    """Return an encoder and decoder as one module that goes by the posterior's mean."""
    from pixelscope.endovae.networks import Decoder, Encoder

    class Autoencoder(torch.nn.Module):
        """Images to reconstructions."""

        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.decoder = Encoder(), Decoder()

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            """Return (N, 3, 96, 96) in [0, 1]."""
            return self.decoder(self.encoder(images)[:, 0])

    return Autoencoder().to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
