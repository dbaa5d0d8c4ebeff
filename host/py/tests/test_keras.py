"""Keras models in and out: the same numbers as Rust's, for Keras 2 and 3."""

from __future__ import annotations

import gzip
import importlib
import json
import pathlib
from typing import Any

import numpy as np
import pytest
import shiftwise
from conftest import DATA, GOLDEN, HAS_KERAS, NO_KERAS, NO_SHARED
from shiftwise import vitis_quantize

pytestmark = pytest.mark.skipif(not HAS_KERAS, reason=NO_KERAS)

CASES = [
    "pof2s_conv_bn_relu_v0", "pof2s_mobilenetv3ish_v0", "pof2s_inceptionish_v0", "pof2s_convtranspose_v0",
    "pof2s_multi_input_v0", "pof2s_avgpool_3x3_v0", "pof2s_gap_7x5_v0", "pof2s_prelu_v0", "pof2s_sequential_mlp",
    "pof2s_unetish_v0", "fsx_default", "fs_method0", "fsx_no_per_channel", "bfp_default",
    "bfp_msfp16", "o_bn_keep", "o_w_asym_optA", "o_act_unsigned_optB", "o_to_fs_optA",
    "o_w_per_channel_optA", "tqt_ptq_keep",
]
#: Layers whose float sums follow another order in TensorFlow's kernels than in the vendor's run.
LOOSE = {"o_bn_keep": 0.05, "fs_method0": 1e-4, "fsx_default": 1e-4, "fsx_no_per_channel": 1e-4}


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request: pytest.FixtureRequest) -> Any:
    return pytest.importorskip(request.param)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=NO_SHARED)
@pytest.mark.parametrize("case", CASES)
def test_a_vendors_file_computes_in_keras_what_the_vendor_computed(case: str, keras: Any) -> None:
    folder = GOLDEN / case
    pathlib.Path("quantized.h5").write_bytes(gzip.decompress((folder / "quantized.h5.gz").read_bytes()))
    model = keras.models.load_model("quantized.h5")
    assert isinstance(model, keras.Model)
    inputs = [np.load(path) for path in sorted(folder.glob("input*.npy"))]
    outputs = model.predict(inputs[0] if len(inputs) == 1 else inputs, verbose=0)
    outputs = outputs if isinstance(outputs, list) else [outputs]
    for path, own in zip(sorted(folder.glob("output*.npy")), outputs):
        np.testing.assert_allclose(own, np.load(path), atol=LOOSE.get(case, 2e-6))
    model.save("again.h5")
    assert pathlib.Path("again.h5").read_bytes() == pathlib.Path("quantized.h5").read_bytes()


def test_a_keras_object_gives_the_numbers_of_its_file(keras: Any, digits: Any) -> None:
    model = keras.models.load_model(DATA / "digits_resnet.h5", compile=False)
    from_object = vitis_quantize.VitisQuantizer(model).quantize_model(digits[0])
    from_file = vitis_quantize.VitisQuantizer(str(DATA / "digits_resnet.h5")).quantize_model(digits[0])
    assert isinstance(from_object, keras.Model)
    assert from_object.quantize_info() == from_file.quantize_info()
    own = from_object.predict(digits[1][:16], verbose=0)
    np.testing.assert_allclose(own, from_file.predict(digits[1][:16]), atol=2e-6)


def test_training_in_keras_follows_training_in_rust(keras: Any, digits: Any) -> None:
    model = keras.models.load_model(DATA / "digits_lenet.h5", compile=False)
    x, y = digits[1][:32].astype(np.float32), digits[2][:32]
    own = vitis_quantize.VitisQuantizer(model, quantize_strategy="pof2s_tqt").get_qat_model(True, digits[0])
    other = vitis_quantize.VitisQuantizer(str(DATA / "digits_lenet.h5"), quantize_strategy="pof2s_tqt").get_qat_model(
        True, digits[0])
    own.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy())
    other.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    for _ in range(3):
        a, b = own.train_on_batch(x, y), other.train_on_batch(x, y)
        a = a[0] if isinstance(a, (list, tuple)) else a
        assert abs(float(a) - b) < 2e-4 * max(1.0, abs(b))
    mine = shiftwise.Model(own.to_native(training=True))
    for p, q in zip(mine.get_weights(), other.get_weights()):
        np.testing.assert_allclose(p, q, atol=2e-5)


def test_custom_layers_are_computed_by_their_own_code(keras: Any) -> None:
    class Scale(keras.layers.Layer):
        def build(self, input_shape: Any) -> None:
            self.s = self.add_weight(name="s", shape=(int(input_shape[-1]),), initializer="ones")

        def call(self, x: Any) -> Any:
            return x * self.s * 2.0

    inputs = keras.layers.Input((8, 8, 3))
    outputs = keras.layers.Conv2D(4, 3)(Scale()(keras.layers.Conv2D(4, 3, activation="relu")(inputs)))
    model = keras.Model(inputs, outputs)
    x = np.random.default_rng(0).normal(size=(20, 8, 8, 3)).astype(np.float32)
    quantized = vitis_quantize.VitisQuantizer(model, custom_objects={"Scale": Scale}).quantize_model(x, add_shape_info=True)
    noise = np.abs(np.asarray(quantized.predict(x, verbose=0)) - np.asarray(model.predict(x, verbose=0))).mean()
    assert noise < 0.05 * np.abs(np.asarray(model.predict(x, verbose=0))).mean()


def test_keras_callbacks_steer_training_in_rust(digits: Any) -> None:
    import keras as newest

    x, y = digits[1][:64].astype(np.float32), digits[2][:64]
    model = vitis_quantize.VitisQuantizer(str(DATA / "digits_lenet.h5")).get_qat_model(True, digits[0])
    model.compile(newest.optimizers.Adam(1e-3), "sparse_categorical_crossentropy", ["accuracy"])
    rates = []
    history = model.fit(
        x, y, epochs=6, batch_size=32, verbose=0, validation_data=(x, y),
        callbacks=[
            newest.callbacks.EarlyStopping(monitor="val_loss", patience=0, min_delta=100.0, restore_best_weights=True),
            newest.callbacks.LearningRateScheduler(lambda epoch, lr: lr * 0.5),
            newest.callbacks.ReduceLROnPlateau(monitor="loss", patience=1),
            newest.callbacks.CSVLogger("log.csv"),
            newest.callbacks.ModelCheckpoint("best.weights.h5", save_weights_only=True),
            lambda epoch, logs: rates.append(model.optimizer.learning_rate),
        ],
    )
    assert len(history.epoch) == 2 and rates[0] == pytest.approx(5e-4)
    assert pathlib.Path("log.csv").exists() and pathlib.Path("best.weights.h5").exists()


def test_tf_data_is_read_as_it_comes(digits: Any) -> None:
    import tensorflow as tf

    x = digits[0][:40].astype(np.float32)
    stream = tf.data.Dataset.from_tensor_slices((x, np.zeros(40))).batch(8)
    lenet = str(DATA / "digits_lenet.h5")
    assert shiftwise.quantize(lenet, stream).to_h5() == shiftwise.quantize(lenet, x, batch_size=8).to_h5()


def test_a_subclassed_model_is_refused_with_the_vendors_code(keras: Any, digits: Any) -> None:
    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    with pytest.raises(shiftwise.Error) as caught:
        vitis_quantize.VitisQuantizer(Own()).quantize_model(digits[0])
    assert caught.value.code == "Quantizer_TF2_Unsupported_Model"
    assert json.dumps(str(caught.value)) and importlib


def test_a_model_goes_to_keras_and_back(keras: Any, digits: Any) -> None:
    from shiftwise.keras import from_keras, to_keras

    path = vitis_quantize.VitisQuantizer(str(DATA / "digits_lenet.h5"), quantize_strategy="pof2s_tqt")
    qat = path.get_qat_model(True, digits[0])
    model = to_keras(qat, keras)
    np.testing.assert_allclose(model.predict(digits[1][:16], verbose=0), qat.predict(digits[1][:16]), atol=2e-6)
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy())
    model.fit(digits[1][:64], digits[2][:64], epochs=1, verbose=0)
    again = from_keras(model)
    assert again.kind == "training" and np.any(again.get_weights()[0] != qat.get_weights()[0])
    np.testing.assert_allclose(again.predict(digits[1][:16]), model.predict(digits[1][:16], verbose=0), atol=2e-6)
