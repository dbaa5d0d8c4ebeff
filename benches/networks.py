#!/usr/bin/env python3
"""Evaluation of whole networks, one thread, by CPU time an image: ours in floats, in integers and in the vendor's
numerics, beside onnxruntime in f32 and int8 (signed, QDQ) on the same architecture.

    python benches/networks.py [--binary FILE] [--rounds N] [--other FILE] MODEL=HxWxC ...
    python benches/networks.py mobilenet_v2.json=224x224x3 resnet8.h5=32x32x3 efficientnet_b0.json=224x224x3

Needs `cargo build --release` first. An architecture (.json) gets random weights, and all get random images: no kernel's
time depends on values. Ours is the difference of two runs of the command over the difference of their images, so that
start-up and packing don't count, but reading samples does. `--other` times a second binary in turn with the first.
The columns of onnxruntime need onnxruntime, tf2onnx and tf_keras, and are left out without them.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = os.path.join(HERE, "..", "target", "release", "shiftwise")
BATCH = 8

# Prints milliseconds of CPU an image in f32 and in int8.
PEER = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, onnxruntime as ort, tensorflow as tf, tf2onnx, tf_keras
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
model, data, folder, rounds = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
if model.endswith(".json"):
    model = tf_keras.models.model_from_json(open(model).read())
else:
    model = tf_keras.models.load_model(model, compile=False)
x = np.load(data)[:BATCH].astype(np.float32)
spec = [tf.TensorSpec((None,) + x.shape[1:], tf.float32, name="x")]
f32, ready, int8 = (os.path.join(folder, name) for name in ("f32.onnx", "ready.onnx", "int8.onnx"))
function = tf.function(lambda x: model(x, training=False))
tf2onnx.convert.from_function(function, input_signature=spec, opset=13, output_path=f32)
name = ort.InferenceSession(f32).get_inputs()[0].name
class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = [{name: x}]
    def get_next(self):
        return self.left.pop() if self.left else None
quant_pre_process(f32, ready)
quantize_static(ready, int8, Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8,
                weight_type=QuantType.QInt8, per_channel=True)
for file in (f32, int8):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    session.run(None, {name: x})
    best = 1e9
    for _ in range(3 * rounds):
        start = time.process_time()
        session.run(None, {name: x})
        best = min(best, time.process_time() - start)
    print(1000 * best / len(x))
""".replace("BATCH", str(BATCH))


def cpu(command):
    """CPU seconds of a command."""
    with open(os.devnull, "w") as nowhere:
        process = subprocess.Popen(command, stdout=nowhere, stderr=subprocess.PIPE)
        problem = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {status}\n{problem.decode()}")
    return usage.ru_utime + usage.ru_stime


def ours(binary, arguments, few, many, rounds):
    """Milliseconds of CPU an image: least of the rounds, many images less few."""
    best = [1e9, 1e9]
    for _ in range(rounds):
        for i, (data, labels, _) in enumerate((few, many)):
            command = [binary, "evaluate", *arguments, "--data", data, "--labels", labels, "--threads", "1", "-q"]
            best[i] = min(best[i], cpu(command))
    return 1000 * (best[1] - best[0]) / (many[2] - few[2])


def samples(folder, shape, count):
    """Random images and labels."""
    data, labels = os.path.join(folder, f"x{count}.npy"), os.path.join(folder, f"y{count}.npy")
    np.save(data, np.random.default_rng(1).random((count, *shape), dtype=np.float32) * 2 - 1)
    np.save(labels, np.zeros(count, dtype=np.int64))
    return data, labels, count


def row(model, shape, options, binary):
    with tempfile.TemporaryDirectory() as folder:
        scale = max(1, (224 * 224) // (shape[0] * shape[1]))
        few, many = samples(folder, shape, 8 * scale), samples(folder, shape, 40 * scale)
        weights = ["--random-weights", "1"] if model.endswith(".json") else []
        quantize = [options.binary, "quantize", model, *weights, "--calib", few[0], "--calib-steps", "1", "-q"]
        cpu([*quantize, "--output-dir", folder])
        quantized = os.path.join(folder, "quantized.h5")
        cells = []
        for arguments in ([model, *weights], [quantized], [quantized, "--numerics", "vendor"]):
            cells.append(f"{ours(binary, arguments, few, many, options.rounds):.2f}")
        peer = [sys.executable, "-c", PEER, os.path.abspath(model), few[0], folder, str(options.rounds)]
        result = subprocess.run(peer, capture_output=True, text=True)
        times = result.stdout.split()[-2:] if result.returncode == 0 else ["-", "-"]
        return cells + [f"{float(t):.2f}" if t != "-" else t for t in times]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=BINARY)
    parser.add_argument("--other", help="a second binary, for the same table")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("models", nargs="+", metavar="MODEL=HxWxC")
    options = parser.parse_args()
    print("ms of CPU an image, one thread")
    print("| network | binary | float | integer | vendor | onnxruntime f32 | onnxruntime int8 |")
    print("|---|---|---:|---:|---:|---:|---:|")
    for argument in options.models:
        model, _, size = argument.rpartition("=")
        for binary in filter(None, (options.binary, options.other)):
            cells = row(model, tuple(int(d) for d in size.split("x")), options, binary)
            print(f"| {os.path.basename(model)} | {os.path.basename(binary)} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
