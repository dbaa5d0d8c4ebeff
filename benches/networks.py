#!/usr/bin/env python3
"""Evaluation of whole networks, one thread, by CPU time an image: ours in floats, in integers and in the vendor's
numerics, beside onnxruntime in f32 and int8 (signed, QDQ) on the same network.

    python benches/networks.py [--rounds N] [--folder FOLDER] [--other FILE] MODEL=HxWxC ...
    python benches/networks.py mobilenet_v2.json=224x224x3 resnet8.h5=32x32x3 efficientnet_b0.json=224x224x3

Needs `cargo build --release -p shiftwise -p shiftwise-benches` first. An architecture (.json) gets random weights, and all
get made-up images: no kernel's time depends on values. onnxruntime gets the network as `shiftwise export` writes it, and
quantizes it with its own tools. All engines run in turn, a batch of eight each time; what counts is the least CPU time over
all rounds. `--other` is a second `shiftwise-benches`, timed in turn with the first. `--folder` keeps the models that were made
for the next run. The columns of onnxruntime need onnxruntime and onnx, and are left out without them.
"""

import argparse
import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
RELEASE = os.path.join(os.environ.get("CARGO_TARGET_DIR", os.path.join(HERE, "..", "target")), "release")

# Answers each line with milliseconds of CPU an image in f32 and in int8.
PEER = """
import os, sys, time
import numpy as np, onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
folder, data = sys.argv[1:]
f32, ready, int8 = (os.path.join(folder, name) for name in ("f32.onnx", "ready.onnx", "int8.onnx"))
x = np.load(data)
name = ort.InferenceSession(f32).get_inputs()[0].name
class Reader(CalibrationDataReader):
    def __init__(self):
        self.left = [{name: x}]
    def get_next(self):
        return self.left.pop() if self.left else None
if not os.path.exists(int8):
    quant_pre_process(f32, ready)
    quantize_static(ready, int8, Reader(), quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8,
                    weight_type=QuantType.QInt8, per_channel=True)
sessions = []
for file in (f32, int8):
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    sessions.append(ort.InferenceSession(file, options, providers=["CPUExecutionProvider"]))
    sessions[-1].run(None, {name: x})
for line in sys.stdin:
    times = []
    for session in sessions:
        start = time.process_time()
        session.run(None, {name: x})
        times.append(1000 * (time.process_time() - start) / len(x))
    print(*times, flush=True)
"""


class Served:
    """A process that answers a line with milliseconds an image; nothing if it can't be had."""

    def __init__(self, command):
        self.best = None
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)

    def measure(self):
        try:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            return
        times = [float(t) for t in self.process.stdout.readline().split()]
        if times:
            self.best = times if self.best is None else [min(pair) for pair in zip(self.best, times)]

    def end(self):
        try:
            self.process.stdin.close()
        except BrokenPipeError:
            pass
        self.process.wait()


def prepare(model, shape, folder):
    """The network in every form that is measured."""
    data = os.path.join(folder, "x.npy")
    np.save(data, np.random.default_rng(1).random((8, *shape), dtype=np.float32) * 2 - 1)
    command = os.path.join(RELEASE, "shiftwise")
    weights = ["--random-weights", "1"] if model.endswith(".json") else []
    quantized, f32 = os.path.join(folder, "quantized.h5"), os.path.join(folder, "f32.onnx")
    if not os.path.exists(quantized):
        quantize = [command, "quantize", model, *weights, "--calib", data, "-q", "--output-dir", folder]
        subprocess.run(quantize, check=True, stdout=subprocess.DEVNULL)
    if not os.path.exists(f32):
        export = [command, "export", model, *weights, "--format", "onnx", "-o", f32, "-q"]
        subprocess.run(export, check=True, stdout=subprocess.DEVNULL)
    return quantized, data


def rows(model, size, options, folder):
    """A row for each binary: the least times of all rounds, in turn."""
    shape = tuple(int(d) for d in size.split("x"))
    os.makedirs(folder, exist_ok=True)
    quantized, data = prepare(model, shape, folder)
    binaries = [os.path.join(RELEASE, "shiftwise-benches"), *filter(None, [options.other])]
    kinds = ([model, size], [quantized, size], [quantized, size, "vendor"])
    ours = [[Served([binary, *arguments]) for arguments in kinds] for binary in binaries]
    peer = Served([sys.executable, "-c", PEER, folder, data])
    everyone = [peer, *(served for row in ours for served in row)]
    for _ in range(options.rounds):
        for served in everyone:
            served.measure()
    for served in everyone:
        served.end()
    theirs = peer.best or [None, None]
    for binary, row in zip(binaries, ours):
        best = [served.best and served.best[0] for served in row]
        ratios = [own / other if own and other else None for own, other in zip(best, theirs)]
        cells = [f"{time:.2f}" if time else "-" for time in (*best, *theirs, *ratios)]
        print(f"| {os.path.basename(model)} | {os.path.basename(binary)} | {' | '.join(cells)} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--other", help="a second binary, for the same table")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--folder", help="keeps what is made of the models")
    parser.add_argument("models", nargs="+", metavar="MODEL=HxWxC")
    options = parser.parse_args()
    print("ms of CPU an image, one thread; the last columns are ours over theirs")
    print("| network | binary | float | integer | vendor | onnxruntime f32 | onnxruntime int8 | float | integer |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as temporary:
        for argument in options.models:
            model, _, size = argument.rpartition("=")
            name, _ = os.path.splitext(os.path.basename(model))
            rows(model, size, options, os.path.join(options.folder or temporary, name))


if __name__ == "__main__":
    main()
