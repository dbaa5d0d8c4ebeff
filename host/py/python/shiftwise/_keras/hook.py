"""Prepares Keras' readers for the vendor's files: at once where Keras is imported, else when it will be."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType
from typing import Any, Dict, Optional, Sequence

#: Keras' modules that read HDF5, each with the Keras that it belongs to.
_READERS: Dict[str, str] = {
    "keras.src.legacy.saving.legacy_h5_format": "keras",
    "keras.src.saving.legacy.hdf5_format": "keras",
    "keras.saving.legacy.hdf5_format": "keras",
    "tf_keras.src.saving.legacy.hdf5_format": "tf_keras",
}


def _prepare(module: ModuleType) -> None:
    from .bridge import wrap_reader

    if hasattr(module, "load_model_from_hdf5"):
        wrap_reader(module, _READERS[module.__name__])


class _Loader(importlib.abc.Loader):
    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> Optional[ModuleType]:
        return self.loader.create_module(spec)  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        _prepare(module)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the readers as Python does, and has them prepared once they are loaded."""

    def find_spec(
        self, name: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[importlib.machinery.ModuleSpec]:
        if name not in _READERS:
            return None
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None and spec.loader is not None:
                spec.loader = _Loader(spec.loader)
                return spec
        return None


def install() -> None:
    """Prepares all readers, now and later."""
    for name in _READERS:
        if name in sys.modules:
            _prepare(sys.modules[name])
    if not any(isinstance(own, _Finder) for own in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
