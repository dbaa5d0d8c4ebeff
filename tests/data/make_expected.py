"""Expected values of the repository's models, computed by TensorFlow: float outputs on the first 16 evaluation images.

    python tests/data/make_expected.py      # needs tensorflow and tf_keras, as make_models.py does

Writes digits_expected.npz: one float32 array [16, 10] per model.
"""

import os

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tf_keras

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    x = np.load(os.path.join(HERE, "digits.npz"))["x_eval"][:16]
    names = ("digits_resnet", "digits_lenet")
    load = lambda name: tf_keras.models.load_model(os.path.join(HERE, name + ".h5"), compile=False)
    outputs = {name: load(name)(x, training=False).numpy() for name in names}
    np.savez_compressed(os.path.join(HERE, "digits_expected.npz"), **outputs)


if __name__ == "__main__":
    main()
