#!/usr/bin/env python3
"""Our gradient kernels (dX, dW) against TensorFlow's, one thread each, in one run.

    python benches/gradients.py [--rounds N] [--profile release]

Layers, batch and clock are those of compare.py. TensorFlow is held to AVX2, which is what our kernels use.
"""

import argparse
import json
import os
import subprocess
import sys

os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX2")

from compare import BATCH, LAYERS, ROOT, cpu_time, flops

import numpy as np


class TensorFlow:
    def __init__(self):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.title = f"tensorflow {tf.__version__}"
        rng = np.random.default_rng(1)
        same = dict(strides=[1, 1, 1, 1], padding="SAME")
        self.calls = []
        for layer, size, cin, cout, kernel, depthwise in LAYERS:
            x = tf.constant(rng.random((BATCH, size, size, cin), dtype=np.float32))
            dy = tf.constant(rng.random((BATCH, size, size, cout), dtype=np.float32))
            w = tf.constant(rng.random((kernel, kernel, cin, 1 if depthwise else cout), dtype=np.float32))
            name = "DepthwiseConv2dNative" if depthwise else "Conv2D"
            of_input = getattr(tf.raw_ops, name + "BackpropInput")
            of_kernel = getattr(tf.raw_ops, name + "BackpropFilter")
            dx = lambda w, dy, f=of_input, s=x.shape: f(input_sizes=s, filter=w, out_backprop=dy, **same)
            dw = lambda x, dy, f=of_kernel, s=w.shape: f(input=x, filter_sizes=s, out_backprop=dy, **same)
            self.calls.append((layer, "dX", lambda f=tf.function(dx), w=w, dy=dy: f(w, dy)))
            self.calls.append((layer, "dW", lambda f=tf.function(dw), x=x, dy=dy: f(x, dy)))

    def measure(self):
        return [(layer, what, cpu_time(call)) for layer, what, call in self.calls]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", default="release", help="cargo profile of our side")
    args = parser.parse_args()
    build = ["cargo", "build", "--profile", args.profile, "-p", "shiftwise-tensor", "--example", "gradient_bench"]
    build += ["--message-format", "json-render-diagnostics"]
    lines = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    binary = next(m["executable"] for m in map(json.loads, reversed(lines)) if m.get("executable"))
    ours = subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    tensorflow = TensorFlow()
    rates = {}

    def record(engine, layer, what, rate):
        key = (engine, what, layer)
        rates[key] = max(rates.get(key, 0.0), rate)

    for number in range(args.rounds):
        print(f"round {number + 1} of {args.rounds}", file=sys.stderr)
        ours.stdin.write("\n")
        ours.stdin.flush()
        for entry in json.loads(ours.stdout.readline()):
            for what in ("dX", "dW"):
                record("ours", entry["layer"], what, entry[what])
        shapes = {layer: shape for layer, *shape in LAYERS}
        for layer, what, seconds in tensorflow.measure():
            record("TensorFlow", layer, what, 1e-9 * flops(*shapes[layer]) / seconds)

    columns = [(engine, what) for what in ("dX", "dW") for engine in ("ours", "TensorFlow")]
    print(f"GFLOP/s, one thread, batch {BATCH}, best of {args.rounds} rounds by CPU time; {tensorflow.title}")
    print("| layer | " + " | ".join(f"{engine} {what}" for engine, what in columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for layer, *_ in LAYERS:
        print(f"| {layer} | " + " | ".join(f"{rates[(*c, layer)]:.1f}" for c in columns) + " |")


if __name__ == "__main__":
    main()
