"""The same training step in other libraries, as their users would write it."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray


def keras_step(frames: NDArray[np.float32]) -> Callable[[], object]:
    """Return EndoVAE's training step in Keras on its torch backend, on `frames` (N, 96, 96, 3) in [0, 1]."""
    os.environ["KERAS_BACKEND"] = "torch"
    # The extra `bench` brings Keras; what checks types has the extra `test`.
    import keras  # pyright: ignore[reportMissingImports]
    from keras import layers, ops  # pyright: ignore[reportMissingImports]

    class Sampling(layers.Layer):
        """Draws z and adds the divergence to the loss."""

        def call(self, inputs: Any) -> Any:
            """Return mean + sigma * noise."""
            mean, log_variance = inputs
            kl = -0.5 * ops.sum(1 + log_variance - ops.square(mean) - ops.exp(log_variance), axis=1)
            self.add_loss(ops.mean(kl))
            return mean + ops.exp(0.5 * log_variance) * keras.random.normal(ops.shape(mean))

    image = keras.Input((96, 96, 3))
    x = image
    for filters, strides in ((16, 1), (32, 1), (32, 2), (64, 2), (128, 1), (256, 2)):
        x = layers.Conv2D(filters, 3, strides=strides, padding="same", activation="relu")(x)
    x = layers.Dense(256, activation="relu")(layers.Flatten()(x))
    z = Sampling()([layers.Dense(6)(x), layers.Dense(6)(x)])
    x = layers.Reshape((12, 12, 256))(layers.Dense(36_864, activation="relu")(z))
    for up, after in ((256, 128), (64, 64), (32, 32)):
        x = layers.Conv2DTranspose(up, 3, strides=2, padding="same", activation="relu")(x)
        x = layers.Conv2D(after, 3, padding="same", activation="relu")(x)
    model = keras.Model(image, layers.Conv2D(3, 3, padding="same", activation="sigmoid")(x))

    def reconstruction(truth: Any, decoded: Any) -> Any:
        return ops.mean(ops.sum(keras.losses.binary_crossentropy(truth, decoded), axis=(1, 2)))

    model.compile(keras.optimizers.Adam(1e-3), loss=reconstruction)
    return lambda: model.train_on_batch(frames, frames)
