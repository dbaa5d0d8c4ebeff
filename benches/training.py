#!/usr/bin/env python3
"""Training of whole networks, one thread, in images a second of CPU time: ours as a float network and quantized (`pof2s`),
beside TensorFlow's float network and a graph that quantizes as the vendor's tool does in training.

    python benches/training.py [--binary FILE] [--rounds N] [--steps N] [--other FILE] NETWORK ...
    python benches/training.py resnet8 mobilenet_v2

A NETWORK is a row of NETWORKS. A step is forward, backward and Adam on a batch of 32. Ours is the difference of two runs
of the command over the difference of their images, so that start-up does not count, but reading samples does.
TensorFlow's is the least time of its `train_on_batch` over all rounds; `--no-peer` leaves it out.

The quantized peer folds normalizations into convolutions, as the vendor does, and quantizes the input, kernels, biases
and results by the vendor's formulas in TensorFlow's operations: range, position, the squared error of five positions
(results and biases: method 1 and 0 as in its default strategy), rounding, clamping; gradients pass straight through.
"""

import argparse
import os
import subprocess
import sys
import tempfile

from networks import cpu

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = os.path.join(HERE, "..", "target", "release", "shiftwise")
BATCH = 32

# Prints images a second of float and quantized training; builds the network's file if it has no third argument.
PEER = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf, tf_keras
from tf_keras import layers
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
path, what, rounds, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

def resnet8():
    def conv(x, filters, size, stride, act=True):
        x = layers.Conv2D(filters, size, stride, "same")(x)
        x = layers.BatchNormalization()(x)
        return layers.ReLU()(x) if act else x
    inputs = layers.Input((32, 32, 3))
    x = conv(inputs, 16, 3, 1)
    for filters, stride in ((16, 1), (32, 2), (64, 2)):
        y = conv(conv(x, filters, 3, stride), filters, 3, 1, False)
        x = layers.Conv2D(filters, 1, stride, "same")(x) if stride > 1 else x
        x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Flatten()(layers.AveragePooling2D(8)(x))
    return tf_keras.Model(inputs, layers.Dense(10, activation="softmax")(x))

def mobilenet_v2():
    return tf_keras.applications.MobileNetV2((160, 160, 3), weights=None, classes=19)

if what == "build":
    locals()[os.path.basename(path).split(".")[0]]().save(path)
    sys.exit(0)

def quantize(x, method):
    return tf.custom_gradient(lambda x: (quantized(x, method), lambda dy: dy))(x)

def quantized(x, method):
    low, high = tf.reduce_min(x), tf.reduce_max(x)
    low, high = tf.minimum(low, high / -0.9921875), tf.maximum(high, low * -0.9921875)
    step = tf.maximum(tf.maximum(low / -128.0, high / 127.0), 2.220446049250313e-16)
    pos = tf.floor(-tf.math.log(step) / tf.math.log(2.0))
    def at(pos):
        scale = tf.pow(2.0, pos)
        return tf.maximum(tf.minimum(tf.floor(x * scale + 0.5), 127.0), -128.0) / scale
    if method == 1:
        errors = [tf.reduce_sum(tf.square(x - at(pos + i))) for i in range(5)]
        pos = pos + tf.cast(tf.argmin(tf.stack(errors)), tf.float32)
    return at(pos)

class Quantize(layers.Layer):
    def call(self, x):
        return quantize(x, 1)

class Quantized(layers.Wrapper):
    def __init__(self, layer, results, **more):
        super().__init__(layer, **more)
        self.results = results
    def call(self, x):
        name = "depthwise_kernel" if hasattr(self.layer, "depthwise_kernel") else "kernel"
        kernel, bias = getattr(self.layer, name), self.layer.bias
        object.__setattr__(self.layer, name, quantize(kernel, 1))
        if bias is not None:
            object.__setattr__(self.layer, "bias", quantize(bias, 0))
        y = self.layer.call(x)
        object.__setattr__(self.layer, name, kernel)
        object.__setattr__(self.layer, "bias", bias)
        return quantize(y, 1) if self.results else y

def reader(layer):
    nodes = layer.outbound_nodes
    return nodes[0].outbound_layer if len(nodes) == 1 else None

def vendor_like(model):
    def clone(layer):
        if isinstance(layer, layers.BatchNormalization):
            return layers.Activation("linear", name=layer.name)
        behind = reader(layer)
        if isinstance(behind, layers.BatchNormalization):
            behind = reader(behind)
        results = not isinstance(behind, layers.ReLU)
        if isinstance(layer, (layers.Conv2D, layers.DepthwiseConv2D, layers.Dense)):
            config = layer.get_config()
            config["use_bias"] = True
            return Quantized(layer.__class__.from_config(config), results, name="quant_" + layer.name)
        own = layer.__class__.from_config(layer.get_config())
        if isinstance(layer, (layers.ReLU, layers.AveragePooling2D, layers.GlobalAveragePooling2D)) or (
            isinstance(layer, layers.Add) and results):
            return tf_keras.Sequential([own, Quantize()]) if not isinstance(layer, layers.Add) else Sum(own)
        return own
    class Sum(layers.Layer):
        def __init__(self, add):
            super().__init__(name=add.name)
        def call(self, x):
            return quantize(tf.add_n(x), 1)
    model = tf_keras.models.clone_model(model, clone_function=clone)
    inputs = layers.Input(model.input_shape[1:])
    return tf_keras.Model(inputs, model(Quantize()(inputs)))

def rate(model):
    model.compile(tf_keras.optimizers.Adam(1e-4), "sparse_categorical_crossentropy")
    x = np.random.default_rng(1).random((batch, *model.input_shape[1:]), dtype=np.float32) * 2 - 1
    y = np.zeros(batch, dtype=np.int64)
    model.train_on_batch(x, y)
    model.train_on_batch(x, y)
    best = 1e9
    for _ in range(3 * rounds):
        start = time.process_time()
        model.train_on_batch(x, y)
        best = min(best, time.process_time() - start)
    return batch / best

model = tf_keras.models.load_model(path)
print(rate(model), rate(vendor_like(model)) if what == "both" else 0.0)
"""

# Shapes of samples; the networks themselves are built by the peer.
NETWORKS = {"resnet8": (32, 32, 3), "mobilenet_v2": (160, 160, 3)}


def ours(binary, model, folder, shape, strategy, options):
    """Images a second of CPU: least time of the rounds, many steps less few."""
    few, many = 2, 2 + options.steps
    best = [1e9, 1e9]
    for _ in range(options.rounds):
        for i, steps in enumerate((few, many)):
            x, y = os.path.join(folder, f"x{steps}.npy"), os.path.join(folder, f"y{steps}.npy")
            if not os.path.exists(x):
                np.save(x, np.random.default_rng(1).random((BATCH * steps, *shape), dtype=np.float32) * 2 - 1)
                np.save(y, np.zeros(BATCH * steps, dtype=np.int64))
            command = [binary, "train", model, "--strategy", strategy, "--data", x, "--labels", y, "--batch-size", str(BATCH)]
            best[i] = min(best[i], cpu([*command, "--threads", str(options.threads), "--output-dir", folder, "-q"]))
    return BATCH * options.steps / (best[1] - best[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=BINARY)
    parser.add_argument("--other", help="a second binary, for the same table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("networks", nargs="+", choices=NETWORKS, metavar="NETWORK")
    options = parser.parse_args()
    print(f"images a second of CPU time in training, batch {BATCH}, one thread")
    print("| network | binary | float | quantized | TensorFlow float | as the vendor quantizes |")
    print("|---|---|---:|---:|---:|---:|")
    for name in options.networks:
        with tempfile.TemporaryDirectory() as folder:
            model = os.path.join(folder, name + ".h5")
            peer = [sys.executable, "-W", "ignore", "-c", PEER, model]
            subprocess.run([*peer, "build", "0", "0"], check=True, capture_output=True)
            times = ["-", "-"]
            if not options.no_peer:
                result = subprocess.run([*peer, "both", str(options.rounds), str(BATCH)], capture_output=True, text=True)
                if result.returncode != 0:
                    sys.exit(result.stderr)
                times = [f"{float(t):.1f}" for t in result.stdout.split()[-2:]]
            for binary in filter(None, (options.binary, options.other)):
                cells = [f"{ours(binary, model, folder, NETWORKS[name], s, options):.1f}" for s in ("none", "pof2s")]
                print(f"| {name} | {os.path.basename(binary)} | {' | '.join(cells + times)} |", flush=True)


if __name__ == "__main__":
    main()
