"""What can be measured: an explicit list. The first contender of an item is ours, the others are compared with it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Item:
    """One line of work and who does it."""

    title: str
    unit: str
    contenders: dict[str, str]
    """By the name that the table shows, the function in contenders.py."""
    rounds: int = 7


MACHINE = "the machine, one large convolution, "
_MACHINE = {f"{MACHINE}{dtype}": f"machine_{dtype}" for dtype in ("bfloat16", "float32")}
"""Its rate beside the steps, taking turns with them: what a share of the ceiling is a share of."""

ITEMS = {
    "pixelda-step": Item(
        "PixelDA training step, preset paper, with data",
        "images",
        {"ours": "pixelda_ours", "ours, float32": "pixelda_ours_float32", "plain": "pixelda_plain", **_MACHINE},
    ),
    "baseline-step": Item("Baseline training step with data", "images", {"ours": "baseline_ours", "plain": "baseline_plain"}),
    "endovae-step": Item(
        "EndoVAE training step, preset paper, with data and augmentation",
        "images",
        {
            "ours": "endovae_ours",
            "ours, float32": "endovae_ours_float32",
            "plain": "endovae_plain",
            "Keras (torch), without data": "endovae_keras",
            **_MACHINE,
        },
        rounds=5,
    ),
    "endovae-epoch": Item(
        "EndoVAE epoch of 256 frames and two copies of each",
        "images",
        {"ours": "endovae_epoch_ours", "plain": "endovae_epoch_plain"},
        rounds=3,
    ),
    "prepare": Item(
        "Preparing frames: files to arrays", "frames", {"ours": "prepare_ours", "plain": "prepare_plain"}, rounds=5
    ),
    "accuracy": Item("Accuracy of T over a test set", "images", {"ours": "accuracy_ours", "plain": "accuracy_plain"}),
    "classify": Item(
        "Classifying 70,000 digits of 28 x 28 from an array",
        "images",
        {"onnxruntime": "classify_onnxruntime", "torch": "classify_torch"},
        rounds=3,
    ),
    "reconstruct": Item(
        "Reconstructing frames, what a score is made of",
        "frames",
        {"onnxruntime": "reconstruct_onnxruntime", "torch": "reconstruct_torch"},
    ),
    "quality": Item("PSNR and SSIM", "frames", {"ours": "quality_ours", "scikit-image": "quality_plain"}),
}

START = "start"
"""The item that times whole processes and has no contenders: import and --help beside `python -c pass`."""
