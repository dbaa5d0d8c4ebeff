#!/usr/bin/env python3
"""Writes small Keras models with whatever makes reading hard, in the files of Keras 2 and Keras 3.

    pip install tensorflow-cpu==2.21.0 tf_keras==2.21.0 keras==3.15.1
    python make_keras.py 2 && python make_keras.py 3

Weights and inputs are drawn by name, so both versions make the same networks; `keras/expected.npz` has inputs and the
float outputs of Keras 2.
"""

import os
import sys
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

VERSION = int(sys.argv[1])
if VERSION == 2:
    import tf_keras as keras
else:
    import keras

layers = keras.layers
HERE = Path(__file__).resolve().parent / "keras"
expected = {}


def draw(name, shape):
    return np.random.default_rng(zlib.crc32(name.encode())).normal(0, 0.5, shape).astype("float32")


def walk(model, path=""):
    for layer in model.layers:
        name = f"{path}/{layer.name}"
        if hasattr(layer, "layers"):
            yield from walk(layer, name)
        else:
            yield name, layer


def save(name, model, files):
    for path, layer in walk(model):
        values = [draw(f"{path}/{i}", w.shape) for i, w in enumerate(layer.get_weights())]
        if isinstance(layer, layers.BatchNormalization):
            values[3] = np.abs(values[3]) + 0.5
        layer.set_weights(values)
    inputs = [draw(f"{name}/x{i}", (2, *x.shape[1:])) for i, x in enumerate(model.inputs)]
    outputs = model(inputs if len(inputs) > 1 else inputs[0])
    outputs = outputs if isinstance(outputs, (list, tuple)) else [outputs]
    expected.update({f"{name}_x{i}": x for i, x in enumerate(inputs)})
    expected.update({f"{name}_y{i}": np.array(y) for i, y in enumerate(outputs)})
    for suffix in files[VERSION]:
        model.save(HERE / f"{name}_keras{VERSION}.{suffix}")


def nested():
    """Models in models, shared at every level, with several outputs, with names that stand at several places."""
    x = layers.Input((6, 6, 3), name="inner_in")
    y = layers.Conv2D(3, 3, padding="same", name="conv")(x)
    y = layers.BatchNormalization(name="bn")(y)
    block = keras.Model(x, layers.ReLU(name="relu")(y), name="block")
    x = layers.Input((6, 6, 3), name="middle_in")
    y = block(block(x))
    middle = keras.Model(x, [y, layers.MaxPooling2D(name="pool")(y)], name="middle")
    head = keras.Sequential(
        [layers.Input((3, 3, 3), name="head_in"), layers.Conv2D(4, 3, name="conv"), layers.Flatten(name="flat")],
        name="head",
    )
    x = layers.Input((6, 6, 3), name="image")
    a, _ = middle(x)
    y = layers.Conv2D(3, 1, name="conv")(a)
    b, small = middle(y, training=False)
    model = keras.Model(x, [layers.Add(name="sum")([a, b]), head(small)], name="nested")
    save("nested", model, {2: ["h5", "keras"], 3: ["h5", "keras"]})


def shared():
    """A tower that two branches of different depth share."""
    left = layers.Input((6, 6, 2), name="left")
    right = layers.Input((6, 6, 2), name="right")
    tower, act = layers.SeparableConv2D(3, 3, name="tower"), layers.PReLU(shared_axes=[1, 2], name="act")
    a = act(tower(left))
    b = act(tower(layers.LeakyReLU(name="pre")(right)))
    joined = layers.Concatenate(name="join")([a, b, a])
    y = layers.Conv2DTranspose(2, 2, strides=2, name="up")(joined)
    save("shared", keras.Model([left, right], [y, b], name="shared"), {2: ["h5"], 3: ["keras"]})


def functions():
    """Operators and functions on tensors."""
    x = layers.Input((6, 6, 3), name="image")
    c = layers.Conv2D(4, 3, name="conv")(x)
    if VERSION == 2:
        from tensorflow import clip_by_value, concat, exp, expand_dims, linalg, nn, reshape, sqrt, square, squeeze, transpose
        from tensorflow import abs as absolute, maximum, minimum, pad
        from tensorflow.math import reduce_max, reduce_mean, reduce_sum, sigmoid

        relu6, softmax, matmul, divide = nn.relu6, nn.softmax, linalg.matmul, tf.math.truediv
    else:
        from keras.ops import absolute, exp, expand_dims, matmul, maximum, minimum, pad, relu6, reshape, sigmoid
        from keras.ops import softmax, sqrt, square, squeeze, transpose
        from keras.ops import clip as clip_by_value, concatenate as concat, max as reduce_max, mean as reduce_mean
        from keras.ops import sum as reduce_sum, true_divide as divide
    y = c * (relu6(c + 3.0) * (1 / 6.0))
    y = reduce_mean(concat([1.0 - y, c], axis=-1), axis=[1, 2])
    first = softmax(y)
    second = divide(clip_by_value(y, -0.5, 0.5), 2.0) / 3.0
    part = reshape(c[:, 1:4, ::-2, :], [-1, 24])
    turned = reduce_sum(transpose(c, [0, 2, 1, 3]), axis=-1, keepdims=True)
    turned = pad(square(sqrt(absolute(turned))), [[0, 0], [1, 1], [0, 2], [0, 0]])
    rows = reduce_max(exp(sigmoid(-minimum(maximum(c, 0.1), 0.4))), axis=3)
    rows = squeeze(expand_dims(rows, -1), axis=3)
    outputs = [first, second, part, turned, matmul(rows, rows)]
    save("functions", keras.Model(x, outputs, name="functions"), {2: ["h5"], 3: ["keras"]})


class Blend(layers.Layer):
    """ratio * a * scale + (1 - ratio) * b"""

    def __init__(self, ratio=0.5, **kwargs):
        super().__init__(**kwargs)
        self.ratio = ratio

    def build(self, shape):
        self.scale = self.add_weight(name="scale", shape=(shape[0][-1],))
        super().build(shape)

    def call(self, inputs):
        return self.ratio * inputs[0] * self.scale + (1 - self.ratio) * inputs[1]

    def get_config(self):
        return {**super().get_config(), "ratio": self.ratio}


def custom():
    """A layer of the user's own."""
    x = layers.Input((6, 6, 3), name="image")
    a = layers.Conv2D(3, 3, padding="same", name="a")(x)
    y = Blend(0.25, name="blend")([a, x])
    save("custom", keras.Model(x, layers.ReLU(name="relu")(y), name="custom"), {2: ["h5"], 3: ["keras"]})


def spelled():
    """What Keras 3 spells or computes otherwise than Keras 2; only Keras 3 makes it."""
    x = layers.Input((6, 6, 3), name="image")
    y = layers.DepthwiseConv2D(3, padding="same", activation="hard_sigmoid", name="depthwise")(x)
    y = layers.SpatialDropout2D(0.2, name="drop")(layers.Activation("hard_silu", name="silu")(y))
    ends = [layers.Activation(f, name=f)(y) for f in ("hard_sigmoid", "leaky_relu", "mish", "log_softmax")]
    save("spelled", keras.Model(x, ends, name="spelled"), {3: ["h5", "keras"]})


def attention():
    """Attention of several heads: with and without biases, masked, with a key of its own."""
    a, b = layers.Input((5, 8), name="a"), layers.Input((6, 4), name="b")
    x = layers.MultiHeadAttention(2, 3, value_dim=4, name="both")(a, b)
    own = layers.MultiHeadAttention(3, 2, use_bias=False, output_shape=7, dropout=0.1, name="own")
    x = own(x, x, use_causal_mask=True)
    x = layers.MultiHeadAttention(1, 4, name="three")(x, b, key=b)
    model = keras.Model([a, b], layers.Flatten(name="flat")(x), name="attention")
    save("attention", model, {2: ["h5"], 3: ["keras", "h5"]})


HERE.mkdir(exist_ok=True)
for make in (nested, shared, functions, custom, attention):
    make()
if VERSION == 2:
    np.savez_compressed(HERE / "expected.npz", **expected)
else:
    known = dict(np.load(HERE / "expected.npz"))
    for name, value in known.items():
        assert name not in expected or np.abs(value - expected[name]).max() < 1e-5, name
    expected.clear()
    spelled()
    np.savez_compressed(HERE / "expected.npz", **known, **expected)
