"""Keras models in: the bytes of their file, in memory. Keras models out: the vendor's file as layers of the user's Keras."""

from __future__ import annotations

import json
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from .. import _native
from .._files import write_file
from ..errors import Error, UnsupportedModel
from . import flavour as flavours
from .flavour import Flavour, memory
from .layers import CUSTOM, VARIABLES, Layers, calls_for_shapes, make_layer

#: The types that variables of the vendor's files may have, by numpy's kind.
_KINDS = {"i": "int32", "f": "float32", "u": "int32"}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _names(group: Any, name: str) -> List[str]:
    """A list of names in attributes, which Keras cuts in pieces where it is long."""
    if name in group.attrs:
        return [_text(own) for own in group.attrs[name]]
    pieces: List[str] = []
    count = 0
    while f"{name}{count}" in group.attrs:
        pieces.extend(_text(own) for own in group.attrs[f"{name}{count}"])
        count += 1
    return pieces


def file_of(model: Any, own: Flavour) -> bytes:
    """The bytes of the HDF5 file that Keras would save; nothing is written to a disk."""
    import h5py

    if not hasattr(model, "inputs") or not getattr(model, "inputs", None):
        raise UnsupportedModel(f"{type(model).__name__} is not built: call it once, or give its input a shape")
    target = memory()
    try:
        with h5py.File(target, "w") as file:
            own.h5.save_model_to_hdf5(model, file, include_optimizer=False)
    except (NotImplementedError, ValueError, TypeError) as e:
        raise UnsupportedModel(f"{type(model).__name__} can't be saved by Keras: {e}") from e
    return target.getvalue()


class CustomLayer:
    """A custom layer of a Keras model, or a function, as Rust calls it: with numpy arrays."""

    def __init__(self, own: Any) -> None:
        self.own = own
        self.layers: Dict[str, Any] = {}

    def _layer(self, config: str, weights: List[Tuple[str, Any]], shapes: List[List[int]]) -> Any:
        if config not in self.layers:
            layer = self.own.from_config(json.loads(config))
            whole = [(None, *shape) for shape in shapes]
            if not layer.built:
                layer.build(whole[0] if len(whole) == 1 else whole)
                layer.built = True
            self.layers[config] = layer
        layer = self.layers[config]
        if weights:
            layer.set_weights([value for _, value in weights])
        return layer

    def _call(self, config: str, weights: List[Tuple[str, Any]], inputs: List[Any]) -> Any:
        if flavours.is_layer(self.own):
            layer = self._layer(config, weights, [list(x.shape[1:]) for x in inputs])
            result = layer(inputs[0] if len(inputs) == 1 else inputs)
        else:
            result = self._function(config, weights, inputs)
        return np.ascontiguousarray(np.asarray(_numpy(result)), dtype=np.float32)

    def _function(self, config: str, weights: List[Tuple[str, Any]], inputs: List[Any]) -> Any:
        import inspect

        try:
            count = len([p for p in inspect.signature(self.own).parameters.values() if p.default is p.empty])
        except (TypeError, ValueError):
            count = 1
        if count >= 3:
            return self.own(inputs, dict(weights), json.loads(config))
        return self.own(*inputs)

    def shape(self, config: str, weights: List[Tuple[str, Any]], shapes: List[List[int]]) -> List[int]:
        """Shape of a sample's result."""
        result = self._call(config, weights, [np.zeros((1, *shape), np.float32) for shape in shapes])
        return list(result.shape[1:])

    def eval(self, config: str, weights: List[Tuple[str, Any]], inputs: List[Any]) -> Any:
        """The result of a batch."""
        return self._call(config, weights, inputs)


def _numpy(value: Any) -> Any:
    if hasattr(value, "detach"):
        return value.detach().cpu().numpy()
    return value.numpy() if hasattr(value, "numpy") else value


def adapters(custom_objects: Dict[str, Any]) -> List[Tuple[str, Any]]:
    """Custom objects as the native module takes them: formulas stay texts."""
    made: List[Tuple[str, Any]] = []
    for name, own in custom_objects.items():
        if isinstance(own, str):
            made.append((str(name), own))
        elif callable(own):
            made.append((str(name), CustomLayer(own)))
    return made


def _is_keras_own(own: type) -> bool:
    return own.__module__.split(".")[0] in ("keras", "tf_keras", "tensorflow") or own.__module__.startswith("shiftwise.")


def custom_classes(model: Any) -> Dict[str, Any]:
    """The classes of a model's layers that are not Keras' own."""
    found: Dict[str, Any] = {}
    for layer in getattr(model, "layers", []):
        # The vendor's wrappers have the user's layer inside.
        while getattr(layer, "inner", None) is not None and hasattr(layer, "_by_name"):
            layer = layer.inner
        if hasattr(layer, "layers"):
            found.update(custom_classes(layer))
        elif not _is_keras_own(type(layer)):
            found[type(layer).__name__] = type(layer)
    return found


def native_of(
    model: Any, own: Flavour, shapes: List[Tuple[Optional[str], List[int]]], custom_objects: Dict[str, Any], training: bool,
) -> "_native.Model":
    """A Keras model as Rust has it."""
    custom = {**custom_classes(model), **custom_objects}
    CUSTOM.update({name: value for name, value in custom.items() if isinstance(value, type)})
    data = own_file(model)
    if data is None:
        data = file_of(model, own)
    return _native.Model.from_bytes(f"{model.name}.h5", data, shapes, adapters(custom), training)


# Models out


def is_vendor_file(file: Any) -> bool:
    """Whether a file has layers of the vendor's."""
    config = file.attrs.get("model_config")
    return config is not None and "Vitis>" in _text(config)


def build(data: bytes, own: Flavour, custom_objects: Optional[Dict[str, Any]] = None) -> Any:
    """The Keras model of a vendor's file, with its weights."""
    import h5py

    with h5py.File(memory(data), "r") as file:
        config = json.loads(_text(file.attrs["model_config"]))
        groups = file["model_weights"] if "model_weights" in file else file
        weights = {
            name: [(weight, groups[name][weight][()]) for weight in _names(groups[name], "weight_names")]
            for name in groups if name != "top_level_model_weights" and hasattr(groups[name], "attrs")
        }
    return _Builder(own, config, weights, custom_objects or {}).model(data)


def _suffix(weight: str) -> str:
    return weight.split("/")[-1].split(":")[0]


class _Builder:
    """A functional model out of a configuration in the form of Keras 2."""

    def __init__(self, own: Flavour, config: Any, weights: Dict[str, Any], custom_objects: Dict[str, Any]) -> None:
        self.own, self.config, self.weights, self.custom = own, config, weights, custom_objects
        self.layers: Dict[str, Any] = {}
        self.results: Dict[Tuple[str, int], Any] = {}

    def layer(self, row: Dict[str, Any]) -> Any:
        config = dict(row["config"])
        name = config.get("name")
        if row["class_name"].startswith("Vitis>"):
            listed = self.weights.get(str(name), [])
            config[VARIABLES] = [
                [_suffix(w), list(np.shape(v)), _KINDS.get(np.asarray(v).dtype.kind, "float32")] for w, v in listed
            ]
        return make_layer(self.own, row["class_name"], config, self.custom)

    def rows(self) -> List[Dict[str, Any]]:
        rows = [dict(row) for row in self.config["config"]["layers"]]
        if self.config["class_name"] == "Sequential":
            before: Optional[str] = None
            for row in rows:
                row["name"] = row["config"]["name"]
                row["inbound_nodes"] = [[[before, 0, 0, {}]]] if before else []
                before = row["name"]
            if rows and rows[0]["class_name"] != "InputLayer":
                shape = rows[0]["config"].get("batch_input_shape")
                name = f"{rows[0]['name']}_input"
                rows[0]["inbound_nodes"] = [[[name, 0, 0, {}]]]
                config = {"name": name, "batch_input_shape": shape, "dtype": "float32"}
                rows.insert(0, {"class_name": "InputLayer", "name": name, "config": config, "inbound_nodes": []})
        return rows

    def model(self, data: bytes) -> Any:
        rows = self.rows()
        waiting = [(row, k) for row in rows for k in range(max(1, len(row["inbound_nodes"])))]
        for row in rows:
            self.layers[row["name"]] = self.layer(row)
        with calls_for_shapes():
            while waiting:
                rest = [own for own in waiting if not self._called(*own)]
                if len(rest) == len(waiting):
                    raise UnsupportedModel("the layers of the file do not follow from its inputs")
                waiting = rest
        inside = self.config["config"]
        if "output_layers" in inside:
            ins = [self.results[(own[0], own[1])] for own in _edges(inside["input_layers"])]
            outs = [self.results[(own[0], own[1])] for own in _edges(inside["output_layers"])]
        else:
            ins, outs = [self.results[(rows[0]["name"], 0)]], [self.results[(rows[-1]["name"], 0)]]
        single_in = ins[0] if len(ins) == 1 else ins
        made = model_class(self.own)(single_in, outs[0] if len(outs) == 1 else outs, name=inside.get("name"))
        made._shiftwise_file = data
        self._assign()
        made._shiftwise_state = _state(made)
        return made

    def _called(self, row: Dict[str, Any], k: int) -> bool:
        """Calls a layer, if all that it reads is there."""
        name, layer = row["name"], self.layers[row["name"]]
        if row["class_name"] == "InputLayer":
            tensor = layer.output if hasattr(layer, "output") else layer._outputs[0]
            self.results[(name, 0)] = tensor[0] if isinstance(tensor, (list, tuple)) else tensor
            return True
        node = row["inbound_nodes"][k] if row["inbound_nodes"] else []
        # The call of a function has its first tensor alone.
        if node and isinstance(node[0], str):
            node = [node]
        keyed: Dict[str, Any] = {}
        for edge in node:
            if len(edge) > 3 and isinstance(edge[3], dict):
                keyed.update(edge[3])
        reads = [(edge[0], edge[1]) for edge in node]
        inner = [value for value in keyed.values() if _is_edge(value, self.layers)]
        if any(own not in self.results for own in reads + [(v[0], v[1]) for v in inner]):
            return False
        keyed = {
            key: self.results[(v[0], v[1])] if _is_edge(v, self.layers) else v for key, v in keyed.items()
        }
        inputs = [self.results[own] for own in reads]
        if row["class_name"] != "TFOpLambda":
            keyed.pop("training", None)
        self.results[(name, k)] = layer(inputs[0] if len(inputs) == 1 else inputs, **keyed)
        return True

    def _assign(self) -> None:
        for name, listed in self.weights.items():
            layer = self.layers.get(name)
            if layer is None or not listed:
                continue
            mine = getattr(layer, "_by_name", None)
            if mine is None:
                layer.set_weights([value for _, value in listed])
                continue
            for weight, value in listed:
                mine[_suffix(weight)].assign(value)


def _edges(given: Any) -> List[Any]:
    return [given] if given and isinstance(given[0], str) else list(given)


def _is_edge(value: Any, layers: Dict[str, Any]) -> bool:
    return isinstance(value, (list, tuple)) and len(value) >= 3 and isinstance(value[0], str) and value[0] in layers


def _variables(model: Any) -> List[Tuple[str, Any]]:
    """The file's groups with the layers that have their weights."""
    return [(layer.name, layer) for layer in model.layers if layer.weights]


def _values(layer: Any) -> Dict[str, Any]:
    mine = getattr(layer, "_by_name", None)
    if mine is not None:
        return {name: np.asarray(_numpy(own)) for name, own in mine.items()}
    return {str(k): own for k, own in enumerate(layer.get_weights())}


def _state(model: Any) -> Dict[str, Dict[str, Any]]:
    return {name: _values(layer) for name, layer in _variables(model)}


def _same(a: Dict[str, Dict[str, Any]], b: Dict[str, Dict[str, Any]]) -> bool:
    return a.keys() == b.keys() and all(
        own.keys() == b[name].keys() and all(np.array_equal(own[k], b[name][k], equal_nan=True) for k in own)
        for name, own in a.items()
    )


def own_file(model: Any) -> Optional[bytes]:
    """The vendor's file of a model of ours, with the weights that the model has now; None for other models."""
    import h5py

    data = getattr(model, "_shiftwise_file", None)
    if data is None:
        return None
    state = _state(model)
    if _same(state, model._shiftwise_state):
        return bytes(data)
    target = memory(data)
    with h5py.File(target, "r+") as file:
        groups = file["model_weights"] if "model_weights" in file else file
        for name, values in state.items():
            if name not in groups:
                continue
            listed = _names(groups[name], "weight_names")
            for k, weight in enumerate(listed):
                value = values.get(_suffix(weight), values.get(str(k)))
                if value is not None and groups[name][weight].shape == np.shape(value):
                    groups[name][weight][...] = value
    made = target.getvalue()
    model._shiftwise_file, model._shiftwise_state = made, state
    return made


_CLASSES: Dict[int, Any] = {}


def model_class(own: Flavour) -> Any:
    """The class of our models: Keras', whose `save` writes the vendor's file."""
    if id(own) in _CLASSES:
        return _CLASSES[id(own)]

    class QuantizedModel(own.keras.Model):  # type: ignore[name-defined, misc]
        """A quantized model, or one in training."""

        def save(self, filepath: Any, overwrite: bool = True, save_format: Any = None, **kwargs: Any) -> None:
            """Writes the vendor's HDF5 file for a name that ends in .h5, ONNX for .onnx, else as Keras does."""
            import os

            path = os.fspath(filepath)
            if path.endswith((".h5", ".hdf5")) or save_format == "h5":
                if not overwrite and os.path.exists(path):
                    raise Error(f"{path} exists, and `overwrite` is False", "Shiftwise_Invalid_Option")
                write_file(path, own_file(self) or b"")
            elif path.endswith(".onnx") or save_format == "onnx":
                write_file(path, self.to_native().onnx())
            elif save_format is None:
                super().save(filepath, overwrite=overwrite, **kwargs)
            else:
                super().save(filepath, overwrite=overwrite, save_format=save_format, **kwargs)

        def compile(self, *arguments: Any, **named: Any) -> None:
            """As Keras' own; one metric needs no list."""
            metrics = named.get("metrics")
            if metrics is not None and not isinstance(metrics, (list, tuple, dict)):
                named["metrics"] = [metrics]
            super().compile(*arguments, **named)

        def to_native(self, training: bool = False) -> Any:
            """The model as Rust has it."""
            return native_of(self, own, [], {}, training)

        def quantize_info(self) -> List[Dict[str, Any]]:
            """What is quantized: a dict for each tensor."""
            return json.loads(self.to_native().quantize_info())  # type: ignore[no-any-return]

    _CLASSES[id(own)] = QuantizedModel
    return QuantizedModel


# Reading by Keras


def wrap_reader(module: Any, root: str) -> None:
    """Lets Keras' own `load_model` read the vendor's files, without a scope of custom objects."""
    import functools

    original: Callable[..., Any] = module.load_model_from_hdf5
    if getattr(original, "_shiftwise", False):
        return

    @functools.wraps(original)
    def load_model_from_hdf5(filepath: Any, custom_objects: Any = None, *args: Any, **kwargs: Any) -> Any:
        import h5py

        own = flavours.named(root)
        if isinstance(filepath, h5py.File):
            if not is_vendor_file(filepath):
                return original(filepath, custom_objects, *args, **kwargs)
            return build(filepath.id.get_file_image(), own, custom_objects)
        with h5py.File(filepath, "r") as file:
            data = file.id.get_file_image() if is_vendor_file(file) else None
        if data is None:
            return original(filepath, custom_objects, *args, **kwargs)
        return build(data, own, custom_objects)

    load_model_from_hdf5._shiftwise = True  # type: ignore[attr-defined]
    module.load_model_from_hdf5 = load_model_from_hdf5


__all__ = ["Layers", "adapters", "build", "file_of", "native_of", "own_file", "wrap_reader"]
