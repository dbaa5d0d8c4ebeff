"""Losses and metrics by Keras' names, of numpy arrays, and losses of other frameworks for the trainer."""

from __future__ import annotations

from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from . import autograd
from .errors import InvalidOption

Array = Any

_EPSILON = 1e-7

#: Names of Keras that mean a loss of the trainer.
ALIASES: Dict[str, str] = {
    "sparse_categorical_crossentropy": "sparse_categorical_crossentropy",
    "categorical_crossentropy": "categorical_crossentropy",
    "binary_crossentropy": "binary_crossentropy",
    "mean_squared_error": "mse",
    "mse": "mse",
    "mean_absolute_error": "mae",
    "mae": "mae",
    "huber": "huber",
    "huber_loss": "huber",
}


def snake(name: str) -> str:
    """Keras' name of a class: ``MeanSquaredError`` is ``mean_squared_error``."""
    made = "".join("_" + c.lower() if c.isupper() and k else c.lower() for k, c in enumerate(name))
    return made


def name_of(loss: Any) -> str:
    """The name of a loss or metric: a word, an object or a function of Keras."""
    if isinstance(loss, str):
        return snake(loss) if not loss.islower() else loss
    own = getattr(loss, "name", None) or getattr(loss, "__name__", None)
    return snake(type(loss).__name__) if own is None else str(own)


#: Settings of Keras' losses, each with the value that the trainer's losses have.
_SETTINGS: Dict[str, Any] = {"label_smoothing": 0.0, "delta": 1.0, "ignore_class": None, "axis": -1}


def _is_keras(value: Any) -> bool:
    module = getattr(value, "__module__", None) or type(value).__module__
    return str(module).split(".")[0] in ("keras", "tf_keras", "tensorflow")


def _is_plain(loss: Any) -> bool:
    """Whether all settings of a loss of Keras are those of the trainer's."""
    given = {**(getattr(loss, "_fn_kwargs", None) or {}), **vars(loss)} if hasattr(loss, "__dict__") else {}
    return all(given.get(name, value) == value for name, value in _SETTINGS.items())


def loss_name(loss: Any) -> Optional[str]:
    """The trainer's name of a loss; None for a loss that Python computes, and for an output that is not trained."""
    if loss is None:
        return None
    if isinstance(loss, str) or _is_keras(loss):
        for word in (name_of(loss), snake(type(loss).__name__)):
            if word in ALIASES and _is_plain(loss):
                return ALIASES[word]
    if callable(loss):
        return None
    raise InvalidOption(
        f"the loss is {name_of(loss)}; one of {', '.join(sorted(set(ALIASES)))}, or a function (y_true, y_pred) that returns "
        "the loss and its gradient is expected"
    )


def own_loss(loss: Any, y_true: Array, y_pred: Array, weight: float = 1.0) -> Tuple[float, Array]:
    """Value and gradient of a loss that Python computes."""
    answer = (autograd.keras_loss(loss) if _is_keras(loss) else loss)(y_true, y_pred)
    if not isinstance(answer, tuple) or len(answer) != 2:
        raise InvalidOption(
            f"the loss returns {type(answer).__name__}; the loss and its gradient by y_pred are expected: torch_loss, tf_loss "
            "and jax_loss make such functions"
        )
    gradient = np.ascontiguousarray(np.asarray(answer[1]), dtype=np.float32)
    return weight * float(answer[0]), gradient if weight == 1.0 else gradient * np.float32(weight)


def value(loss: Any, y_true: Array, y_pred: Array, weight: float = 1.0) -> float:
    """The mean loss over all samples, whoever computes it."""
    name = loss_name(loss)
    if name is None:
        return own_loss(loss, y_true, y_pred, weight)[0]
    return weight * loss_value(name, y_true, y_pred, from_logits(loss))


def _probabilities(y: Array, from_logits: bool, kind: str) -> Array:
    y = np.asarray(y, np.float64)
    if not from_logits:
        return np.clip(y, _EPSILON, 1 - _EPSILON)
    if kind == "sigmoid":
        return np.clip(1 / (1 + np.exp(-y)), _EPSILON, 1 - _EPSILON)
    e = np.exp(y - y.max(-1, keepdims=True))
    return np.clip(e / e.sum(-1, keepdims=True), _EPSILON, 1)


def loss_value(name: str, y_true: Array, y_pred: Array, from_logits: bool = False) -> float:
    """The mean loss over all samples."""
    true = np.asarray(y_true)
    if name == "sparse_categorical_crossentropy":
        p = _probabilities(y_pred, from_logits, "softmax").reshape(-1, np.shape(y_pred)[-1])
        return float(-np.log(p[np.arange(len(p)), true.reshape(-1).astype(int)]).mean())
    if name == "categorical_crossentropy":
        p = _probabilities(y_pred, from_logits, "softmax")
        return float(-(true.reshape(p.shape) * np.log(p)).sum(-1).mean())
    true = true.reshape(np.shape(y_pred)).astype(np.float64)
    if name == "binary_crossentropy":
        p = _probabilities(y_pred, from_logits, "sigmoid")
        return float(-(true * np.log(p) + (1 - true) * np.log(1 - p)).mean())
    d = true - np.asarray(y_pred, np.float64)
    if name == "mae":
        return float(np.abs(d).mean())
    if name == "huber":
        return float(np.where(np.abs(d) <= 1, 0.5 * d * d, np.abs(d) - 0.5).mean())
    return float((d * d).mean())


def _classes(y_true: Array, y_pred: Array) -> Array:
    true = np.asarray(y_true)
    if true.shape == np.shape(y_pred) and true.ndim > 1 and true.shape[-1] > 1:
        return true.argmax(-1).reshape(-1)
    return true.reshape(-1)


def _accuracy(y_true: Array, y_pred: Array) -> float:
    if np.shape(y_pred)[-1] == 1:
        return float(((np.asarray(y_pred).reshape(-1) > 0.5) == (np.asarray(y_true).reshape(-1) > 0.5)).mean())
    return float((np.asarray(y_pred).reshape(-1, np.shape(y_pred)[-1]).argmax(-1) == _classes(y_true, y_pred)).mean())


def _top(k: int) -> Callable[[Array, Array], float]:
    def top(y_true: Array, y_pred: Array) -> float:
        pred = np.asarray(y_pred).reshape(-1, np.shape(y_pred)[-1])
        best = np.argsort(-pred, axis=-1, kind="stable")[:, :k]
        return float((best == _classes(y_true, y_pred)[:, None]).any(-1).mean())

    return top


def _binary_accuracy(y_true: Array, y_pred: Array) -> float:
    pred = np.asarray(y_pred)
    return float(((pred > 0.5) == (np.asarray(y_true).reshape(pred.shape) > 0.5)).mean())


#: Metrics by Keras' names.
METRICS: Dict[str, Callable[[Array, Array], float]] = {
    "accuracy": _accuracy,
    "acc": _accuracy,
    "sparse_categorical_accuracy": _accuracy,
    "categorical_accuracy": _accuracy,
    "binary_accuracy": _binary_accuracy,
    "sparse_top_k_categorical_accuracy": _top(5),
    "top_k_categorical_accuracy": _top(5),
    **{name: (lambda own: lambda y, p: loss_value(own, y, p))(own) for name, own in ALIASES.items()},
}


def metric(own: Any) -> Tuple[str, Callable[[Array, Array], float]]:
    """Name and function of a metric: Keras' name, an object or a function ``f(y_true, y_pred)``."""
    name = name_of(own)
    k = getattr(own, "k", None) or (getattr(own, "_fn_kwargs", None) or {}).get("k")
    if k and "top_k" in name:
        return name, _top(int(k))
    for word in (name, snake(type(own).__name__)):
        if word in METRICS:
            return name, METRICS[word]
    if callable(own):
        return name, lambda y, p: float(np.mean(np.asarray(own(y, p))))
    raise InvalidOption(f"the metric is {name}; one of {', '.join(METRICS)} is expected")


def from_logits(loss: Any) -> bool:
    """Whether a loss of Keras takes logits."""
    kwargs = getattr(loss, "_fn_kwargs", None) or {}
    return bool(getattr(loss, "from_logits", kwargs.get("from_logits", False)))


def optimizer_of(optimizer: Any) -> Tuple[str, float, float, Optional[float]]:
    """Name, rate, momentum and weight decay of an optimizer: Keras' name or object."""
    rates = {"sgd": 0.01, "adam": 0.001, "adamw": 0.001, "rmsprop": 0.001}
    if isinstance(optimizer, str):
        name = optimizer.lower()
        if name not in rates:
            raise InvalidOption(f"the optimizer is {optimizer}; one of {', '.join(rates)} is expected")
        return name, rates[name], 0.0, None
    name = type(optimizer).__name__.lower()
    if name not in rates:
        raise InvalidOption(f"the optimizer is {type(optimizer).__name__}; one of {', '.join(rates)} is expected")
    rate = getattr(optimizer, "learning_rate", rates[name])
    if callable(rate) and not hasattr(rate, "numpy"):
        rate = rate(0)
    momentum = getattr(optimizer, "momentum", 0.0) or 0.0
    decay = getattr(optimizer, "weight_decay", None)
    numpy = [float(np.asarray(own.numpy() if hasattr(own, "numpy") else own)) for own in (rate, momentum)]
    return name, numpy[0], numpy[1], None if decay is None else float(decay)


def metrics_list(metrics: Any) -> List[Any]:
    """Metrics as a flat list."""
    if metrics is None:
        return []
    if isinstance(metrics, dict):
        metrics = list(metrics.values())
    if not isinstance(metrics, (list, tuple)):
        return [metrics]
    return [own for item in metrics for own in (item if isinstance(item, (list, tuple)) else [item])]
