"""The losses against plain NumPy."""

import numpy as np
import pytest
import scipy.stats
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelscope.pixelda import losses

logits = hnp.arrays(np.float64, st.integers(1, 6), elements=st.floats(-20, 20))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@given(logits, logits, st.booleans())
def test_discriminator_loss(real: np.ndarray, generated: np.ndarray, soft: bool) -> None:
    p, q = _sigmoid(real), _sigmoid(generated)
    high, low = (0.9, 0.1) if soft else (1.0, 0.0)
    expected = -np.mean(high * np.log(p) + (1 - high) * np.log(1 - p)) - np.mean(low * np.log(q) + (1 - low) * np.log(1 - q))
    found = losses.discriminator_loss(torch.tensor(real), torch.tensor(generated), soft)
    assert float(found) == pytest.approx(expected, rel=1e-4, abs=1e-5)


@given(logits)
def test_generator_domain_loss(generated: np.ndarray) -> None:
    expected = -np.mean(np.log(_sigmoid(generated)))
    assert float(losses.generator_domain_loss(torch.tensor(generated))) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_task_loss_is_the_mean_of_minus_log_softmax_taken_once() -> None:
    random = np.random.default_rng(0)
    values, labels = random.normal(size=(5, 4)), np.array([0, 3, 1, 1, 2])
    expected = np.mean([np.log(np.exp(row).sum()) - row[label] for row, label in zip(values, labels, strict=True)])
    assert float(losses.task_loss(torch.tensor(values), torch.tensor(labels))) == pytest.approx(expected, rel=1e-5)


def _images(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-1, 1, (3, 3, 4, 4))


@pytest.mark.parametrize("seed", range(3))
def test_content_similarity_loss_against_its_pairwise_form(seed: int) -> None:
    """The squared differences over all pairs of pixels say the same (Bousmalis 2017, section 3.1, after Eigen 2014)."""
    source, generated = _images(seed), _images(seed + 100)
    mask = (np.random.default_rng(seed).uniform(size=(3, 1, 4, 4)) > 0.4).astype(float)
    each = []
    for x, g, m in zip(source, generated, mask, strict=True):
        d = ((x - g) * m).ravel()
        each.append(sum((a - b) ** 2 for a in d for b in d) / (2 * len(d) ** 2))
    found = losses.content_similarity_loss(*(torch.tensor(v) for v in (source, generated, mask)))
    assert float(found) == pytest.approx(np.mean(each), rel=1e-5)


def test_content_loss_lets_the_whole_foreground_shift_and_ignores_the_background() -> None:
    source = torch.tensor(_images(0))
    everywhere, half = torch.ones(3, 1, 4, 4), torch.ones(3, 1, 4, 4)
    half[..., :2] = 0
    assert float(losses.content_similarity_loss(source, source + 0.3, everywhere)) == pytest.approx(0, abs=1e-6)
    changed = source.clone()
    changed[..., :2] = 5.0
    assert float(losses.content_similarity_loss(source, changed, half)) == 0
    assert float(losses.content_similarity_loss(source, changed, everywhere)) > 0.1


def test_foreground_is_every_pixel_above_black() -> None:
    images = torch.full((1, 3, 2, 2), -1.0)
    images[0, 1, 0, 1] = -1 + 2 / 255  # one grey level above black, in one channel
    assert losses.foreground(images)[0, 0].tolist() == [[0, 1], [0, 0]]


def test_conditional_entropy_is_that_of_scipy() -> None:
    logits = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    expected = scipy.stats.entropy(logits.softmax(1).double().numpy(), axis=1).mean()
    assert losses.conditional_entropy(logits).item() == pytest.approx(expected, rel=1e-5)


def test_virtual_adversarial_loss_moves_along_the_direction_that_changes_the_prediction() -> None:
    """Of a linear classifier of two classes the worst change of a given length is along the difference of its weights."""
    draw = torch.Generator().manual_seed(0)
    weights = torch.randn(2, 12, generator=draw)
    images = torch.randn(6, 3, 2, 2, generator=draw)

    def classify(given: torch.Tensor) -> torch.Tensor:
        return given.flatten(1) @ weights.T

    logits = classify(images).requires_grad_()
    start = torch.randn(images.shape, generator=draw)
    found = losses.virtual_adversarial_loss(classify, images, logits, start, radius=0.1)
    worst = weights[1] - weights[0]
    change = (0.1 * worst / worst.norm()).view(3, 2, 2)
    side = torch.where((start.flatten(1) @ worst) > 0, 1.0, -1.0)[:, None, None, None]
    expected = F.kl_div(classify(images + side * change).log_softmax(1), logits.softmax(1), reduction="batchmean")
    assert found.item() == pytest.approx(expected.item(), rel=1e-4)
    other = F.kl_div(classify(images + 0.1 * start / 12**0.5).log_softmax(1), logits.softmax(1), reduction="batchmean")
    assert found > other
    weights.requires_grad_()
    losses.virtual_adversarial_loss(classify, images, logits, start, radius=0.1).backward()
    assert logits.grad is None, "predictions of the unchanged images are the target"
    assert weights.grad is not None
