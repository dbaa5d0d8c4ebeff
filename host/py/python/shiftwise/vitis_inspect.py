"""The vendor's inspector: where each layer of a float model runs, and why."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from typing import Any, Dict, Optional

from . import _models, _native, _strategies
from ._strategies import log
from .errors import InvalidInputShape, InvalidOption, InvalidTarget, WrongKind

#: Settings that an inspection has otherwise than quantizing.
_FORCED = {"include_cle": False, "include_fast_ft": False}


class VitisInspector:
    """Inspects float models for a DPU: its name, its fingerprint or the path of its ``arch.json``."""

    def __init__(
        self,
        quantize_strategy: str = "pof2s",
        custom_quantize_strategy: Any = None,
        custom_objects: Optional[Dict[str, Any]] = None,
        target: Optional[str] = None,
        target_type: Optional[str] = None,
    ) -> None:
        if quantize_strategy not in ("pof2s", "8bit"):
            # The document has the target in the first place.
            if target is not None or not isinstance(quantize_strategy, str) or quantize_strategy in _strategies.NAMES:
                raise InvalidOption(f"`quantize_strategy` is {quantize_strategy!r}; only pof2s is inspected")
            quantize_strategy, target = "pof2s", quantize_strategy
        if target is not None and not isinstance(target, str):
            raise InvalidTarget(f"`target` is {target!r}; a name, a fingerprint or the path of an arch.json is expected")
        self._custom, self._custom_objects, self._target = custom_quantize_strategy, dict(custom_objects or {}), target
        if target is not None:
            _native.targets(target)

    def inspect_model(
        self,
        model: Any,
        input_shape: Any = None,
        plot: bool = False,
        plot_file: Any = "model.svg",
        dump_model: bool = False,
        dump_model_file: Any = "inspect_model.h5",
        dump_results: bool = True,
        dump_results_file: Any = "inspect_results.txt",
        verbose: int = 0,
        configs: Optional[Dict[str, Any]] = None,
        **kwargs: Any,
    ) -> "OrderedDict[str, Dict[str, Any]]":
        """Inspects a model and writes what is asked for.

        Returns a mapping of each layer's name to its ``device``, ``origin_layers``, ``notes`` and ``id``.
        """
        given = {**(configs or {}), **kwargs}
        if self._target is None and given.get("quantize_with_xcompiler", True) is not False:
            raise InvalidTarget(
                "Inspecting without specific target: pass `target` to VitisInspector, or quantize_with_xcompiler=False for "
                "what holds of every DPU"
            )
        strategy = _strategies.strategy("pof2s", self._custom)
        for warning in _strategies.settings(strategy, {**_FORCED, **given}):
            log(warning, 1)
        float_model = _models.native(model, input_shape, self._custom_objects)
        if float_model.kind != "float":
            raise WrongKind("the model is quantized already, a float one is inspected")
        files = [os.fspath(path) if wanted else None for wanted, path in (
            (dump_results, dump_results_file), (plot, plot_file), (dump_model, dump_model_file))]
        report, summary, _ = _native.inspect(
            float_model, strategy, self._target, None, files[0], files[1], files[2], bool(verbose)
        )
        for line in summary:
            log(line)
        results: "OrderedDict[str, Dict[str, Any]]" = OrderedDict()
        for k, row in enumerate(json.loads(report)["layers"]):
            results[row["layer"]] = {
                "device": row["device"], "origin_layers": [row["layer"]], "notes": row["notes"], "id": k,
            }
        return results


__all__ = ["InvalidInputShape", "VitisInspector"]
