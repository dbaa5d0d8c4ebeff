#!/usr/bin/env python3
"""Our convolution kernels against TensorFlow and onnxruntime, one thread each, in one run.

    pip install tensorflow-cpu==2.18.1 onnxruntime==1.32.0 onnx==1.18.0
    python benches/compare.py [--rounds N]

Every round times every engine on every layer; the table shows each engine's best CPU time over the rounds as
GFLOP/s (int8: GOP/s). See benches/README.md for what is and is not compared.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
BATCH = 8
# name (as conv_bench prints it), image size, input channels, output channels, kernel size, depthwise
LAYERS = [
    ("3x3 56x56 64-64", 56, 64, 64, 3, False),
    ("3x3 28x28 128-128", 28, 128, 128, 3, False),
    ("3x3 14x14 256-256", 14, 256, 256, 3, False),
    ("1x1 56x56 64-256", 56, 64, 256, 1, False),
    ("1x1 14x14 1024-256", 14, 1024, 256, 1, False),
    ("depthwise 3x3 56x56 128", 56, 128, 128, 3, True),
]


def flops(size, cin, cout, kernel, depthwise):
    return 2.0 * BATCH * size * size * kernel * kernel * cout * (1 if depthwise else cin)


def cpu_time(call, repeat=3):
    """Smallest CPU seconds of the whole process over a few calls, so a helper thread would be counted too."""
    call()
    best = float("inf")
    for _ in range(repeat):
        start = time.process_time()
        call()
        best = min(best, time.process_time() - start)
    return best


class TensorFlow:
    name = "TensorFlow f32"

    def __init__(self):
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        self.title = f"tensorflow {tf.__version__}"
        rng = np.random.default_rng(1)
        self.calls = {}
        for layer, size, cin, cout, kernel, depthwise in LAYERS:
            x = tf.constant(rng.random((BATCH, size, size, cin), dtype=np.float32))
            shape = (kernel, kernel, cin, 1 if depthwise else cout)
            w = tf.constant(rng.random(shape, dtype=np.float32) - 0.5)
            b = tf.constant(rng.random(cout, dtype=np.float32))
            if depthwise:
                op = lambda x, w=w, b=b: tf.nn.bias_add(tf.nn.depthwise_conv2d(x, w, [1, 1, 1, 1], "SAME"), b)
            else:
                op = lambda x, w=w, b=b: tf.nn.relu(tf.nn.bias_add(tf.nn.conv2d(x, w, 1, "SAME"), b))
            function = tf.function(op)
            self.calls[layer] = lambda f=function, x=x: f(x)

    def measure(self):
        return {layer: cpu_time(call) for layer, call in self.calls.items()}


class OnnxRuntime:
    """Float Conv, or QLinearConv on u8 activations and i8 weights."""

    def __init__(self, int8):
        import onnxruntime as ort

        self.int8 = int8
        self.name = "onnxruntime " + ("int8" if int8 else "f32")
        self.title = f"onnxruntime {ort.__version__}"
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        rng = np.random.default_rng(1)
        self.calls = {}
        for layer, *shape in LAYERS:
            session = ort.InferenceSession(self.model(rng, *shape), options, providers=["CPUExecutionProvider"])
            _, size, cin = layer, shape[0], shape[1]
            if int8:
                x = rng.integers(0, 256, (BATCH, cin, size, size), dtype=np.uint8)
            else:
                x = rng.random((BATCH, cin, size, size), dtype=np.float32)
            # Bound input and output: no copy through NumPy is timed.
            binding = session.io_binding()
            binding.bind_cpu_input("x", x)
            binding.bind_output("y")
            self.calls[layer] = lambda s=session, b=binding, keep=x: s.run_with_iobinding(b)

    def model(self, rng, size, cin, cout, kernel, depthwise):
        from onnx import TensorProto, helper, numpy_helper

        group = cin if depthwise else 1
        shape = (cout, cin // group, kernel, kernel)
        attributes = dict(group=group, kernel_shape=[kernel, kernel], pads=[kernel // 2] * 4)
        constants = {}
        if self.int8:
            constants["w"] = rng.integers(-128, 128, shape, dtype=np.int8)
            constants["b"] = rng.integers(-999, 999, cout, dtype=np.int32)
            for key, value in [("xs", 0.5), ("ws", 0.5), ("ys", 64.0)]:
                constants[key] = np.float32(value)
            constants["xz"], constants["wz"], constants["yz"] = np.uint8(128), np.int8(0), np.uint8(0)
            names = ["x", "xs", "xz", "w", "ws", "wz", "ys", "yz", "b"]
            nodes = [helper.make_node("QLinearConv", names, ["y"], **attributes)]
            dtype = TensorProto.UINT8
        else:
            constants["w"] = rng.random(shape, dtype=np.float32) - np.float32(0.5)
            constants["b"] = rng.random(cout, dtype=np.float32)
            nodes = [helper.make_node("Conv", ["x", "w", "b"], ["y" if depthwise else "c"], **attributes)]
            if not depthwise:
                nodes.append(helper.make_node("Relu", ["c"], ["y"]))
            dtype = TensorProto.FLOAT
        graph = helper.make_graph(
            nodes,
            "layer",
            [helper.make_tensor_value_info("x", dtype, [BATCH, cin, size, size])],
            [helper.make_tensor_value_info("y", dtype, [BATCH, cout, size, size])],
            [numpy_helper.from_array(np.asarray(v), k) for k, v in constants.items()],
        )
        opset = [helper.make_opsetid("", 13)]
        return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()

    def measure(self):
        return {layer: cpu_time(call) for layer, call in self.calls.items()}


class Ours:
    """The example `conv_bench`, kept running; one line in, one line of JSON out."""

    def __init__(self):
        build = ["cargo", "build", "--release", "-p", "shiftwise-tensor", "--example", "conv_bench"]
        build += ["--message-format", "json-render-diagnostics"]
        lines = subprocess.run(build, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        messages = [json.loads(line) for line in lines]
        binary = next(m["executable"] for m in reversed(messages) if m.get("executable"))
        self.process = subprocess.Popen([binary, "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def measure(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    ours = Ours()
    others = [TensorFlow(), OnnxRuntime(int8=False), OnnxRuntime(int8=True)]
    rates = {}

    def record(engine, layer, rate):
        key = (engine, layer)
        rates[key] = max(rates.get(key, 0.0), rate)

    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        for entry in ours.measure():
            record("ours f32", entry["layer"], entry["f32"])
            record("ours int8", entry["layer"], entry["int8"])
        for engine in others:
            for (layer, *shape), seconds in zip(LAYERS, engine.measure().values()):
                record(engine.name, layer, 1e-9 * flops(*shape) / seconds)

    columns = ["ours f32", others[0].name, others[1].name, "ours int8", others[2].name]
    print(f"GFLOP/s (int8: GOP/s), one thread, batch {BATCH}, best of {rounds} rounds by CPU time;", end=" ")
    print(f"{others[0].title}, {others[1].title}")
    print("| layer | " + " | ".join(columns) + " |")
    print("|---|" + "---:|" * len(columns))
    for layer, *_ in LAYERS:
        print(f"| {layer} | " + " | ".join(f"{rates[c, layer]:.1f}" for c in columns) + " |")
    # Rate of the five convolutions together: all their operations over all their time.
    totals = []
    for column in columns:
        work = [(flops(*shape), rates[column, layer]) for layer, *shape in LAYERS if not shape[-1]]
        totals.append(sum(w for w, _ in work) / sum(w / r for w, r in work))
    print("| five convolutions together | " + " | ".join(f"{t:.1f}" for t in totals) + " |")


if __name__ == "__main__":
    main()
