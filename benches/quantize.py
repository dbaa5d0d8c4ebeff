"""Whole quantizations, by CPU time and peak memory, paired with TensorFlow's forward pass over the same images.

    python benches/quantize.py [MODEL.h5 DATA.npz:KEY [SCALE]]
    python benches/quantize.py ARCHITECTURE.json HxWxC

Needs `cargo build --release` first, and tensorflow with tf_keras for the paired column (left out without them).
The calibration set is repeated to 100, 400 and 1600 images: CPU time grows with it, memory must not. An architecture
gets random weights, the same in both columns' kind but not in value, and 32, 128 and 256 random images.
"""

import os
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
BINARY = os.path.join(HERE, "..", "target", "release", "shiftwise")
DATA = os.path.join(HERE, "..", "tests", "data")

# One forward pass per batch of 32, as the vendor's calibration makes it, timed after a first warm-up batch.
PEER = """
import os, sys, time
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np, tensorflow as tf, tf_keras
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
if sys.argv[1].endswith(".json"):
    model = tf_keras.models.model_from_json(open(sys.argv[1]).read())
else:
    model = tf_keras.models.load_model(sys.argv[1], compile=False)
x = np.load(sys.argv[2])
step = tf.function(lambda b: model(b, training=False))
step(tf.constant(x[:32]))
best = 1e9
for _ in range(3):
    start = time.process_time()
    for i in range(0, len(x), 32):
        step(tf.constant(x[i:i + 32]))
    best = min(best, time.process_time() - start)
print(best)
"""


def measured(command):
    """CPU seconds and peak MB of a command."""
    pid = os.spawnvp(os.P_NOWAIT, command[0], command)
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{' '.join(command)}: status {status}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def main():
    model = sys.argv[1] if len(sys.argv) > 1 else os.path.join(DATA, "digits_resnet.h5")
    data = sys.argv[2] if len(sys.argv) > 2 else os.path.join(DATA, "digits.npz") + ":x_cal"
    scale = float(sys.argv[3]) if len(sys.argv) > 3 else 1.0
    if model.endswith(".json"):
        size = tuple(int(d) for d in data.split("x"))
        images = np.random.RandomState(0).rand(32, *size).astype(np.float32) * 2 - 1
        counts, more = (32, 128, 256), ["--random-weights", "1"]
    else:
        path, key = data.rsplit(":", 1)
        images = np.load(path)[key].astype(np.float32) * np.float32(scale)
        counts, more = (100, 400, 1600), []
    print("| images | shiftwise quantize, CPU s | peak MB | TensorFlow float forward, CPU s |")
    print("|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for count in counts:
            x = os.path.join(folder, "x.npy")
            np.save(x, np.resize(images, (count,) + images.shape[1:]))
            ours = [BINARY, "quantize", model, "--calib", x, "--threads", "1", "-q", "--json",
                    "--output-dir", os.path.join(folder, "out")] + more
            with open(os.devnull, "w") as null:
                saved = os.dup(1)
                os.dup2(null.fileno(), 1)
                runs = [measured(ours) for _ in range(3)]
                os.dup2(saved, 1)
                os.close(saved)
            peer = subprocess.run([sys.executable, "-c", PEER, model, x], capture_output=True, text=True)
            tf = f"{float(peer.stdout):.2f}" if peer.returncode == 0 else "not installed"
            print(f"| {count} | {min(r[0] for r in runs):.2f} | {min(r[1] for r in runs):.0f} | {tf} |")


if __name__ == "__main__":
    main()
