"""What users call a model, as Rust has it, and results back in the user's form."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any, Dict, List, Optional

from . import _native
from ._arguments import Shapes, input_shapes
from .data import Dataset, dataset, shapes_of
from .errors import InvalidInputShape, InvalidOption, UnsupportedModel
from .model import Model


def _named(shapes: Shapes, names: List[str]) -> Shapes:
    """Shapes of several inputs without names belong to the inputs in order."""
    if len(shapes) > 1 and all(name is None for name, _ in shapes) and len(names) == len(shapes):
        return [(name, own) for name, (_, own) in zip(names, shapes)]
    return shapes


def keras_of(model: Any) -> Any:
    """The Keras that an object is a model of; None for anything else. Keras is never imported for it."""
    if not any(own in sys.modules for own in ("keras", "tf_keras")):
        return None
    from ._keras import flavour

    return flavour.of(model)


def native(
    model: Any,
    input_shape: Any = None,
    custom_objects: Optional[Dict[str, Any]] = None,
    data: Any = None,
    training: bool = False,
) -> "_native.Model":
    """A model as Rust has it: of Keras, of this package, or in a file.

    One that leaves its input's size open takes ``input_shape``, or the size of the data.
    """
    try:
        return _native_of(model, input_shapes(input_shape), custom_objects or {}, training)
    except InvalidInputShape:
        sized = shapes_of(data) if input_shape is None and data is not None else []
        if not sized:
            raise
        return _native_of(model, sized, custom_objects or {}, training)


def _native_of(model: Any, shapes: Shapes, custom_objects: Dict[str, Any], training: bool) -> "_native.Model":
    if not isinstance(custom_objects, dict):
        raise InvalidOption(f"`custom_objects` is {type(custom_objects).__name__}; a dict of classes is expected")
    if isinstance(model, _native.Model):
        return model
    if isinstance(model, Model):
        return model._now()
    if isinstance(model, (str, os.PathLike)):
        from ._keras.bridge import adapters

        return _native.Model.open(os.fspath(model), shapes, adapters(custom_objects), training)
    own = keras_of(model)
    if own is None:
        raise UnsupportedModel(f"{type(model).__name__} is no model; a Keras model, a path or a shiftwise.Model is expected")
    from ._keras import bridge

    inputs = [getattr(own, "name", "").split(":")[0] for own in getattr(model, "inputs", None) or []]
    names = getattr(model, "input_names", None) or inputs
    return bridge.native_of(model, own, _named(shapes, list(names)), custom_objects, training)


def back(made: "_native.Model", like: Any, report: Any = None, custom_objects: Optional[Dict[str, Any]] = None) -> Any:
    """A result in the user's form: a Keras model where the input was one, else a :class:`shiftwise.Model`."""
    own = None if isinstance(like, (str, os.PathLike, Model, _native.Model)) else keras_of(like)
    if own is None:
        return Model(made, report)
    from ._keras import bridge

    try:
        model = bridge.build(made.h5(f"{made.name}.h5"), own, custom_objects)
    except Exception as e:  # noqa: BLE001
        # Layers that this Keras has not: Rust computes them all the same.
        warnings.warn(f"the result is a shiftwise.Model, for Keras can't hold it: {e}", RuntimeWarning, stacklevel=3)
        return Model(made, report)
    _compile_like(model, like, own.keras)
    if report is not None:
        from .results import Quantization

        model.shiftwise_report = Quantization(report)
    return model


def _compile_like(model: Any, like: Any, keras: Any) -> None:
    """Compiles a result as the user's model is, so that it can be trained and measured at once."""
    try:
        config = like.get_compile_config() if getattr(like, "optimizer", None) is not None else None
        if config:
            # Keras' own `compile_from_config` passes over classes whose `compile` is their own.
            model.compile(**keras.saving.deserialize_keras_object(config))
    except Exception:  # noqa: BLE001
        # What Keras can't write down, the user compiles again, as the vendor's tool asks for anyway.
        return


def samples(data: Any, model: "_native.Model", steps: Optional[int] = None) -> Dataset:
    """Data for a model's inputs."""
    return dataset(data, model.inputs, steps)
