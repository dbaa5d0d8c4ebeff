"""Makes the vendor's own import paths resolve to this package; a real tensorflow_model_optimization stays reachable.

``import shiftwise.compat`` is enough: after it, programs that import
``tensorflow_model_optimization.quantization.keras.vitis_quantize`` run as they are.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any, Dict

from . import vitis_inspect, vitis_quantize

_ROOT = "tensorflow_model_optimization"
_KERAS = f"{_ROOT}.quantization.keras"
_CORE = f"{_ROOT}.python.core.quantization.keras.vitis"

#: The vendor's modules of layers and quantizers that programs and `layer_type` words name, with the classes in each.
_CLASSES: Dict[str, Dict[str, str]] = {
    "layers.vitis_activation": {"VitisSigmoid": "VitisSigmoid", "VitisSoftmax": "VitisSoftmax"},
    "layers.vitis_pooling": {
        "VitisAveragePooling2D": "AveragePooling2D", "VitisGlobalAveragePooling2D": "VitisGlobalAveragePooling2D",
    },
    "layers.vitis_quantize": {"VitisQuantize": "VitisQuantize"},
    "layers.vitis_quantize_layer": {"VitisQuantize": "VitisQuantize"},
    "layers.vitis_quantize_wrapper": {
        "QuantizeWrapper": "QuantizeWrapper", "QuantizeWrapperV2": "QuantizeWrapperV2", "CustomOpWrapper": "CustomOpWrapper",
    },
    "layers.vitis_conv_bn": {
        "VitisConvBNQuantize": "VitisConvBNQuantize", "VitisDepthwiseConvBNQuantize": "VitisDepthwiseConvBNQuantize",
    },
    "base.vitis_quantizers": {}, "base.vitis_quantize_ops": {}, "base": {}, "layers": {}, "utils": {},
}


class _Classes(ModuleType):
    """A module whose classes are those of the Keras that the program has imported last."""

    def __init__(self, name: str, classes: Dict[str, str]) -> None:
        super().__init__(name)
        self.__path__ = []
        self._classes = classes

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or name not in self.__dict__.get("_classes", {}):
            raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")
        from ._keras import flavour, layers

        known = flavour.loaded()
        if not known:
            importlib.import_module("keras")
            known = flavour.loaded()
        # TF_USE_LEGACY_KERAS has TensorFlow load Keras 2.
        own = next((k for k in known if k.version == 2), known[0])
        return layers.layers_of(own).classes[self._classes[name]]


def _package(name: str) -> ModuleType:
    """A package of this name: the real one where it is installed, else an empty one."""
    if name in sys.modules:
        return sys.modules[name]
    try:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    except Exception:  # noqa: BLE001
        # A package of that name which this environment can't import is as good as none.
        sys.modules.pop(name, None)
    made = ModuleType(name)
    made.__path__ = []
    sys.modules[name] = made
    return made


def _put(name: str, module: ModuleType) -> None:
    """Registers a module, and all packages around it."""
    parent, _, last = name.rpartition(".")
    path = ""
    for part in parent.split("."):
        outer, path = path, f"{path}.{part}" if path else part
        own = _package(path)
        if outer:
            setattr(sys.modules[outer], part, own)
    sys.modules[name] = module
    setattr(sys.modules[parent], last, module)


def install() -> None:
    """Registers the modules; importing this module has done it."""
    for path in (_KERAS, _CORE):
        _put(f"{path}.vitis_quantize", vitis_quantize)
        _put(f"{path}.vitis_inspect", vitis_inspect)
    for root in (f"{_KERAS}.vitis", _CORE):
        for name, classes in sorted(_CLASSES.items()):
            _put(f"{root}.{name}", _Classes(f"{root}.{name}", classes))


install()
