#!/usr/bin/env python3
"""Trains the two small networks of the tests, and writes them with their data beside this file.

    pip install tensorflow-cpu==2.18.1 tf_keras==2.18.0 scikit-learn==1.9.1
    python make_models.py

The data are scikit-learn's bundled digits (nothing is downloaded). The seed is fixed and TensorFlow's
deterministic kernels are on, so the same versions on the same kind of processor give the same weights; other
versions give other weights of the same quality. Needs tf_keras, that is Keras 2, for its .h5 layout.
"""

import os
from pathlib import Path

os.environ["TF_USE_LEGACY_KERAS"] = "1"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np
import tensorflow as tf
import tf_keras as keras
from sklearn.datasets import load_digits
from tf_keras import layers

HERE = Path(__file__).resolve().parent
SEED = 20240229
EVAL = 450
CALIBRATION = 100


def load():
    """Pixels 0..16 as 0.0..1.0, which is what the networks take; shuffled once with the seed."""
    digits = load_digits()
    x = (digits.images[..., None] / 16.0).astype(np.float32)
    y = digits.target.astype(np.int64)
    order = np.random.default_rng(SEED).permutation(len(x))
    x, y = x[order], y[order]
    return (x[EVAL:], y[EVAL:]), (x[:EVAL], y[:EVAL])


def shifted(x, y):
    """The training set and its copies moved by one pixel, so that 1347 images are enough."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    moves = [(1, 1), (0, 1), (2, 1), (1, 0), (1, 2)]
    return (
        np.concatenate([padded[:, dy : dy + 8, dx : dx + 8] for dy, dx in moves]),
        np.concatenate([y] * len(moves)),
    )


def resnet():
    """Two residual stages; the second one halves the image with a strided 1x1 shortcut."""

    def conv(x, filters, kernel, strides, name):
        x = layers.Conv2D(filters, kernel, strides, "same", use_bias=False, name=f"{name}_conv")(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    def block(x, filters, strides, name):
        y = conv(x, filters, 3, strides, f"{name}_1")
        y = layers.ReLU(name=f"{name}_1_relu")(y)
        y = conv(y, filters, 3, 1, f"{name}_2")
        if strides != 1:
            x = conv(x, filters, 1, strides, f"{name}_0")
        y = layers.Add(name=f"{name}_add")([x, y])
        return layers.ReLU(name=f"{name}_relu")(y)

    inputs = keras.Input((8, 8, 1), name="image")
    x = conv(inputs, 16, 3, 1, "stem")
    x = layers.ReLU(name="stem_relu")(x)
    x = block(x, 16, 1, "block1")
    x = layers.MaxPooling2D(2, name="pool")(x)
    x = block(x, 32, 2, "block2")
    x = layers.GlobalAveragePooling2D(name="average")(x)
    x = layers.Dense(10, name="logits")(x)
    return keras.Model(inputs, layers.Softmax(name="probabilities")(x), name="digits_resnet")


def lenet():
    """A plain chain with the activations inside of its layers."""
    return keras.Sequential(
        [
            keras.Input((8, 8, 1), name="image"),
            layers.Conv2D(12, 3, padding="same", activation="relu", name="conv1"),
            layers.MaxPooling2D(2, name="pool1"),
            layers.Conv2D(24, 3, padding="same", activation="relu", name="conv2"),
            layers.MaxPooling2D(2, name="pool2"),
            layers.Flatten(name="flatten"),
            layers.Dense(48, activation="relu", name="dense1"),
            layers.Dense(10, activation="softmax", name="dense2"),
        ],
        name="digits_lenet",
    )


def main():
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.experimental.enable_op_determinism()
    train, (x_eval, y_eval) = load()
    np.savez_compressed(HERE / "digits.npz", x_cal=train[0][:CALIBRATION], x_eval=x_eval, y_eval=y_eval)
    x, y = shifted(*train)
    for build in (resnet, lenet):
        keras.utils.set_random_seed(SEED)
        model = build()
        schedule = keras.optimizers.schedules.CosineDecay(3e-3, 30 * -(-len(x) // 64))
        model.compile(keras.optimizers.Adam(schedule), "sparse_categorical_crossentropy", ["accuracy"])
        model.fit(x, y, batch_size=64, epochs=30, verbose=0)
        accuracy = model.evaluate(x_eval, y_eval, verbose=0)[1]
        model.save(HERE / f"{model.name}.h5", include_optimizer=False)
        print(f"{model.name}: {model.count_params()} parameters, accuracy {accuracy:.4f}")


if __name__ == "__main__":
    main()
