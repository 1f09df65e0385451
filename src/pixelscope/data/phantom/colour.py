"""From light to what the sensor records."""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from pixelscope.data.phantom.fields import Floats


@dataclass(frozen=True)
class Tint:
    """Colour of the tissue under the lamp: how much of each channel's light it throws back, exposure included."""

    red: float
    green: float
    blue: float

    def exposed(self, light: Floats, blood: Floats) -> Floats:
        """Return what a sensor records that saturates: 1 - exp(-light * tint).

        Args:
            light: (H, W), 0 and up.
            blood: (H, W), about 0; where it is more, less green and blue comes back.

        Returns:
            float32, shape (H, W, 3), RGB in [0, 1].
        """
        pale = light * np.exp(-blood)
        channels = (light * np.float32(self.red), pale * np.float32(self.green), pale * np.float32(self.blue))
        return 1 - cv2.exp(cv2.merge([-channel for channel in channels]))


def draw_tint(random: np.random.Generator) -> Tint:
    """Draw the tissue's colour in a frame: from orange to pink, from dim to bright."""
    red = random.uniform(1.3, 2.0)
    return Tint(red, red * random.uniform(0.33, 0.45), red * random.uniform(0.17, 0.3))


def with_glints(image: Floats, glints: Floats) -> Floats:
    """Return an image (H, W, 3) under white glints (H, W), both in [0, 1]."""
    return image + cv2.merge([glints] * 3) * (1 - image)


def as_bytes(image: Floats, noise: Floats) -> NDArray[np.uint8]:
    """Return an image (H, W, 3) in [0, 1] with a sensor's noise (H, W), as uint8."""
    # NumPy would spread the noise over the channels at five times the cost.
    return np.clip(255 * (image + cv2.merge([noise] * 3)) + np.float32(0.5), 0, 255).astype(np.uint8)
