"""Training without Keras: losses of one's own and of other frameworks, metrics, callbacks."""

from __future__ import annotations

import importlib.util
from typing import Any, Dict, List

import numpy as np
import pytest
import shiftwise
from conftest import HAS_KERAS, NO_KERAS
from shiftwise import vitis_quantize


def prepared(lenet: str, digits: Any, loss: Any, metrics: Any = None) -> Any:
    model = vitis_quantize.VitisQuantizer(lenet, quantize_strategy="pof2s_tqt").get_qat_model(True, digits[0])
    model.compile("sgd", loss, metrics)
    return model


def labelled(digits: Any) -> Any:
    return digits[1][:64].astype(np.float32), np.eye(10, dtype=np.float32)[digits[2][:64]]


def squared(y_true: Any, y_pred: Any) -> Any:
    """The mean squared error and its gradient."""
    difference = y_pred - y_true
    return float((difference**2).mean()), 2 * difference / difference.size


def learned(model: Any, data: Any) -> List[Any]:
    losses = [model.train_on_batch(*data) for _ in range(3)]
    return [losses, *model.get_weights()]


def alike(a: List[Any], b: List[Any], tolerance: float = 1e-6) -> None:
    for own, other in zip(a, b):
        np.testing.assert_allclose(own, other, rtol=1e-5, atol=tolerance)


def test_a_loss_of_ones_own_trains_as_the_same_loss_by_name(lenet: str, digits: Any) -> None:
    data = labelled(digits)
    alike(learned(prepared(lenet, digits, squared), data), learned(prepared(lenet, digits, "mse"), data))


def test_jax_makes_the_gradient(lenet: str, digits: Any) -> None:
    pytest.importorskip("jax", reason="jax is not installed")
    data = labelled(digits)
    own = shiftwise.jax_loss(lambda predictions, targets: (predictions - targets) ** 2)
    alike(learned(prepared(lenet, digits, own), data), learned(prepared(lenet, digits, "mse"), data))


def test_pytorch_makes_the_gradient(lenet: str, digits: Any) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    data = labelled(digits)
    own = shiftwise.torch_loss(torch.nn.MSELoss())
    alike(learned(prepared(lenet, digits, own), data), learned(prepared(lenet, digits, "mse"), data))


@pytest.mark.skipif(not HAS_KERAS, reason=NO_KERAS)
def test_tensorflow_and_keras_make_the_gradient(lenet: str, digits: Any) -> None:
    import keras

    data = labelled(digits)
    want = learned(prepared(lenet, digits, "mse"), data)
    alike(learned(prepared(lenet, digits, shiftwise.tf_loss(lambda y, p: (y - p) ** 2)), data), want)
    # A loss of Keras that the trainer has not: its value is Keras' own.
    x, y = data
    smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    model = prepared(lenet, digits, smoothed)
    before = float(smoothed(y, model.predict(x)))
    assert model.train_on_batch(x, y) == pytest.approx(before, rel=2e-2)
    assert model.evaluate(x, y, return_dict=True)["loss"] < before


def test_a_loss_that_returns_no_gradient_is_refused(lenet: str, digits: Any) -> None:
    data = labelled(digits)
    with pytest.raises(shiftwise.Error, match="torch_loss"):
        prepared(lenet, digits, lambda y, p: 0.5).train_on_batch(*data)
    with pytest.raises(shiftwise.Error, match="shape"):
        prepared(lenet, digits, lambda y, p: (0.5, np.zeros(3))).train_on_batch(*data)
    with pytest.raises(ZeroDivisionError):
        prepared(lenet, digits, lambda y, p: 1 / 0).train_on_batch(*data)
    with pytest.raises(shiftwise.Error, match="the loss is"):
        prepared(lenet, digits, 3.0).train_on_batch(*data)


class Recorder:
    """A callback in the form of Keras'."""

    def __init__(self) -> None:
        self.events: List[str] = []
        self.params: Dict[str, Any] = {}
        self.model: Any = None

    def set_params(self, params: Dict[str, Any]) -> None:
        self.params = params

    def set_model(self, model: Any) -> None:
        self.model = model

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("on_"):
            raise AttributeError(name)
        return lambda *arguments: self.events.append(name)


def test_callbacks_see_what_keras_tells_them(lenet: str, digits: Any) -> None:
    x, y = digits[1][:64].astype(np.float32), digits[2][:64]
    model, own = prepared(lenet, digits, "sparse_categorical_crossentropy", ["accuracy"]), Recorder()
    history = model.fit(x, y, epochs=1, batch_size=32, verbose=0, callbacks=[own])
    step = ["on_train_batch_begin", "on_train_batch_end"]
    assert own.events == ["on_train_begin", "on_epoch_begin", *step, *step, "on_epoch_end", "on_train_end"]
    assert own.model is model and own.params["steps"] == 2
    assert set(history.history) == {"loss", "accuracy"} and 0.8 < history.history["accuracy"][0] <= 1
    assert "accuracy" in history._repr_html_() and "1 epochs" in repr(history)
    with pytest.raises(shiftwise.Error, match="callback"):
        model.fit(x, y, callbacks=[3], verbose=0)


def test_the_package_names_no_framework_that_is_not_there() -> None:
    for name, make in (("jax", shiftwise.jax_loss), ("torch", shiftwise.torch_loss), ("tensorflow", shiftwise.tf_loss)):
        own = make(lambda a, b: a)
        if importlib.util.find_spec(name) is None:
            with pytest.raises(ImportError, match=name):
                own(np.zeros(2), np.zeros(2))
