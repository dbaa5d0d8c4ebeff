"""Models of Rust as Keras models and back, where training is to run on the engines that Keras has."""

from __future__ import annotations

from typing import Any, Dict, Optional

from . import _models, _native
from .model import Model


def to_keras(model: Any, keras: Any = None, custom_objects: Optional[Dict[str, Any]] = None) -> Any:
    """A Keras model that computes what the model computes: quantizers are ``keras.ops`` with the vendor's gradients.

    ``model``: what ``get_qat_model`` or ``quantize_model`` returned for a path, or the path of such a file. ``keras``: the
    module ``keras`` or ``tf_keras``; ``keras``, on whichever backend it has, if it is not given.
    """
    from ._keras import bridge, flavour

    if keras is None:
        import keras as newest

        keras = newest
    own = flavour.named(keras.__name__.split(".")[0])
    native = _models.native(model, custom_objects=custom_objects)
    return bridge.build(native.h5(f"{native.name}.h5"), own, custom_objects)


def from_keras(model: Any, custom_objects: Optional[Dict[str, Any]] = None, training: Optional[bool] = None) -> Model:
    """The model of Rust with the weights, thresholds and positions that a Keras model has now.

    ``training``: whether the result trains on; if it is not given, it does where the model was in training.
    """
    made: "_native.Model" = _models.native(model, custom_objects=custom_objects)
    if training is None:
        training = made.kind == "quantized" and _in_training(model)
    return Model(_models.native(model, custom_objects=custom_objects, training=True) if training else made)


def _in_training(model: Any) -> bool:
    return any(getattr(layer, "_kept", {}).get("mode") == "QAT" for layer in getattr(model, "layers", []))
