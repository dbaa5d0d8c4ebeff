"""Losses of other frameworks for the trainer: their own differentiation makes the gradient.

The trainer takes any function ``f(y_true, y_pred)`` that returns the loss and its gradient by ``y_pred``; what is here makes
such functions of losses that return the loss alone.
"""

from __future__ import annotations

from typing import Any, Callable, Tuple

import numpy as np

#: What the trainer calls: labels and an output, float32 ``[n, ...]``; the loss and its gradient by the output.
OwnLoss = Callable[[Any, Any], Tuple[float, Any]]


def _labels(y_true: Any) -> Any:
    """Labels as frameworks take them: classes are int64, values float32."""
    made = np.asarray(y_true)
    return np.ascontiguousarray(made, dtype=np.int64 if made.dtype.kind in "iub" else np.float32)


def torch_loss(loss: Callable[[Any, Any], Any]) -> OwnLoss:
    """A loss of PyTorch, ``loss(input, target)`` as PyTorch has it, such as ``torch.nn.CrossEntropyLoss()``."""

    def own(y_true: Any, y_pred: Any) -> Tuple[float, Any]:
        import torch

        values = torch.from_numpy(np.array(y_pred, np.float32)).requires_grad_(True)
        result = loss(values, torch.from_numpy(_labels(y_true).copy())).mean()
        result.backward()
        gradient = np.zeros(values.shape, np.float32) if values.grad is None else values.grad.numpy()
        return float(result.detach()), gradient

    return own


def jax_loss(loss: Callable[[Any, Any], Any]) -> OwnLoss:
    """A loss of JAX, ``loss(predictions, targets)`` as optax has it; the mean of what it returns is trained."""

    def own(y_true: Any, y_pred: Any) -> Tuple[float, Any]:
        import jax

        labels = _labels(y_true)
        result, gradient = jax.value_and_grad(lambda values: loss(values, labels).mean())(jax.numpy.asarray(y_pred))
        return float(result), np.asarray(gradient, np.float32)

    return own


def tf_loss(loss: Callable[[Any, Any], Any]) -> OwnLoss:
    """A loss of TensorFlow or Keras, ``loss(y_true, y_pred)``; the mean of what it returns is trained."""

    def own(y_true: Any, y_pred: Any) -> Tuple[float, Any]:
        import tensorflow as tf

        values = tf.convert_to_tensor(np.asarray(y_pred, np.float32))
        with tf.GradientTape() as tape:
            tape.watch(values)
            result = tf.reduce_mean(loss(tf.convert_to_tensor(_labels(y_true)), values))
        gradient = tape.gradient(result, values)
        made = np.zeros(np.shape(y_pred), np.float32) if gradient is None else tf.convert_to_tensor(gradient).numpy()
        return float(result.numpy()), made

    return own


def keras_loss(loss: Callable[[Any, Any], Any]) -> OwnLoss:
    """A loss of Keras, on whichever backend this Keras has."""
    root = getattr(type(loss), "__module__", "").split(".")[0]
    if root != "tf_keras":
        import keras

        backend = keras.backend.backend() if hasattr(keras, "ops") else "tensorflow"
        if backend in ("torch", "jax"):
            of = torch_loss if backend == "torch" else jax_loss
            return of(lambda values, labels: loss(labels, values))
    return tf_loss(loss)
