"""Which Keras a model is of, and the few things that differ between them."""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any, Dict, List, Optional

from ..errors import UnsupportedModel


class TfOps:
    """The operations that the layers need, by the names of ``keras.ops``, for Keras 2."""

    def __init__(self, tf: Any) -> None:
        self.tf = tf
        self.round, self.floor, self.ceil = tf.round, tf.floor, tf.math.ceil
        self.maximum, self.minimum, self.where = tf.maximum, tf.minimum, tf.where
        self.stop_gradient, self.log, self.square, self.abs = tf.stop_gradient, tf.math.log, tf.square, tf.abs
        self.logical_and, self.zeros_like, self.ones_like = tf.logical_and, tf.zeros_like, tf.ones_like
        self.isfinite, self.stack, self.argmin = tf.math.is_finite, tf.stack, tf.argmin
        self.transpose, self.reshape, self.shape = tf.transpose, tf.reshape, tf.shape
        self.pad, self.cast, self.exp, self.matmul = tf.pad, tf.cast, tf.exp, tf.matmul
        self.convert_to_tensor, self.rsqrt = tf.convert_to_tensor, tf.math.rsqrt

    def clip(self, x: Any, low: Any, high: Any) -> Any:
        return self.tf.maximum(self.tf.minimum(x, high), low)

    def take(self, x: Any, index: Any, axis: int = 0) -> Any:
        return self.tf.gather(x, index, axis=axis)

    def max(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return self.tf.reduce_max(x, axis=axis, keepdims=keepdims)

    def min(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return self.tf.reduce_min(x, axis=axis, keepdims=keepdims)

    def sum(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return self.tf.reduce_sum(x, axis=axis, keepdims=keepdims)

    def mean(self, x: Any, axis: Any = None, keepdims: bool = False) -> Any:
        return self.tf.reduce_mean(x, axis=axis, keepdims=keepdims)

    def conv(self, x: Any, kernel: Any, strides: Any, padding: str, dilation_rate: Any) -> Any:
        return self.tf.nn.convolution(x, kernel, strides=list(strides), padding=padding.upper(), dilations=list(dilation_rate))

    def depthwise_conv(self, x: Any, kernel: Any, strides: Any, padding: str, dilation_rate: Any) -> Any:
        steps = [1, *strides, 1]
        return self.tf.nn.depthwise_conv2d(x, kernel, steps, padding.upper(), dilations=list(dilation_rate))


class Flavour:
    """A Keras: its modules, and whether it is of the second or third generation."""

    def __init__(self, keras: Any, version: int) -> None:
        self.keras, self.version = keras, version
        if version == 2:
            self.ops: Any = TfOps(importlib.import_module("tensorflow"))
        else:
            self.ops = keras.ops

    def _module(self, *names: str) -> Any:
        for name in names:
            try:
                return importlib.import_module(name)
            except ImportError:
                continue
        raise UnsupportedModel(f"this version of Keras ({self.keras.__version__}) is not known")

    @property
    def h5(self) -> Any:
        """The module that writes and reads models in HDF5."""
        root = self.keras.__name__.split(".")[0]
        if self.version == 3:
            return self._module("keras.src.legacy.saving.legacy_h5_format")
        return self._module(
            f"{root}.src.saving.legacy.hdf5_format", f"{root}.saving.legacy.hdf5_format", f"{root}.saving.hdf5_format"
        )

    def register(self, own: Any, name: str) -> Any:
        """Registers a class as the vendor's tool does: ``Vitis>name``."""
        utils = self.keras.saving if hasattr(self.keras, "saving") else self.keras.utils
        if not hasattr(utils, "register_keras_serializable"):
            utils = self.keras.utils
        return utils.register_keras_serializable(package="Vitis", name=name)(own)


_KNOWN: Dict[str, Flavour] = {}


def named(root: str) -> Flavour:
    if root not in _KNOWN:
        keras = importlib.import_module(root)
        _KNOWN[root] = Flavour(keras, 3 if int(keras.__version__.split(".")[0]) >= 3 else 2)
    return _KNOWN[root]


def loaded() -> List[Flavour]:
    """Every Keras that the program has imported."""
    return [named(root) for root in ("keras", "tf_keras") if hasattr(sys.modules.get(root), "Model")]


def of(model: Any) -> Optional[Flavour]:
    """The Keras that an object is a model of; None for anything else."""
    for own in loaded():
        if isinstance(model, own.keras.Model):
            return own
    # A Keras that TensorFlow has inside.
    for base in type(model).__mro__:
        root = base.__module__.split(".")[0]
        if root in ("keras", "tf_keras") and base.__name__ == "Model":
            return named(root)
    return None


def is_layer(value: Any) -> bool:
    """Whether a value is a class of Keras layers."""
    return isinstance(value, type) and any(
        base.__module__.split(".")[0] in ("keras", "tf_keras") and base.__name__ == "Layer" for base in value.__mro__
    )


def memory(data: bytes = b"") -> io.BytesIO:
    """A file in memory."""
    return io.BytesIO(data)
