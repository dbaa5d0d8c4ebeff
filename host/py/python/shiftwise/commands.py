"""A function for every command of the command line: keyword arguments are its flags, results are small classes."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional, Tuple

from . import _models, _native, _strategies, results
from ._arguments import count, number, path_or_none
from .data import dataset
from .deployable import Deployable, compiled, load_deployable
from .model import Model

Strategy = Any


def load_model(path: Any, input_shape: Any = None, custom_objects: Optional[Dict[str, Any]] = None, training: bool = False) -> Model:
    """Reads a model of any known format; ``training`` takes a quantized one to be trained."""
    return Model(_models.native(os.fspath(path), input_shape, custom_objects, training=training))


def _strategy(name: Any, custom: Any, settings: Dict[str, Any]) -> Tuple["_native.Strategy", List[str]]:
    if isinstance(name, dict):
        made = _strategies.strategy("pof2s", None, name)
    else:
        made = _strategies.strategy(name, custom)
    return made, _strategies.settings(made, settings)


def quantize(
    model: Any,
    calib: Any = None,
    strategy: Strategy = "pof2s",
    *,
    custom_strategy: Any = None,
    batch_size: int = 32,
    steps: Optional[int] = None,
    seed: int = 0,
    input_shape: Any = None,
    custom_objects: Optional[Dict[str, Any]] = None,
    **settings: Any,
) -> Model:
    """Quantizes a float model; ``settings`` are the vendor's keyword arguments. ``.report`` says what was done."""
    made, warnings = _strategy(strategy, custom_strategy, settings)
    needs = made.needs_data()
    native = _models.native(model, input_shape, custom_objects, calib if needs else None)
    data = _models.samples(calib, native, steps) if needs and calib is not None else None
    size = (data.batch_size if data is not None else None) or number("batch_size", batch_size)
    result, report = _native.quantize(
        native, made, data, size, count("steps", steps), seed, _strategies.progress("calibrating")
    )
    told = json.loads(report)
    told["warnings"] = warnings + told["warnings"]
    return Model(result, told)


def compile(  # noqa: A001
    model: Any, *, target: Optional[str] = None, board: Optional[str] = None, strict: bool = False, fast: bool = False,
) -> Deployable:
    """Compiles a quantized model for a DPU, a board, or a processor alone.

    ``strict``: whether layers that the DPU leaves to the CPU are an error. ``fast``: the fastest program, of which not every
    tensor can be seen.
    """
    return compiled(_models.native(model), target, board, strict, fast)


def simulate(model: Any, data: Any, **options: Any) -> results.Simulation:
    """Runs a compiled network in the simulator: see :meth:`Deployable.simulate`."""
    own = model if isinstance(model, Deployable) else load_deployable(model)
    return own.simulate(data, **options)


def verify(
    model: Any, data: Any, *, target: Optional[str] = None, board: Optional[str] = None, samples: int = 1,
    calib: Any = None, **options: Any,
) -> results.Proof:
    """Proves that quantizer, simulator and kernels compute the same bits; a float model is quantized with ``calib`` first."""
    native = _models.native(model)
    if native.kind == "float":
        native = quantize(native, calib, **options)._native
    data = dataset(data, native.inputs, samples)
    report, _ = _native.verify(native, data, target, board, number("samples", samples))
    return results.Proof(report)


def inspect(
    model: Any, *, target: Optional[str] = None, board: Optional[str] = None, custom_strategy: Any = None,
    dump_results: Any = None, plot: Any = None, dump_model: Any = None, verbose: bool = False, input_shape: Any = None,
    custom_objects: Optional[Dict[str, Any]] = None, **settings: Any,
) -> results.Inspection:
    """Says where each layer of a model would run, why, and at what price."""
    made, _ = _strategy("pof2s", custom_strategy, settings)
    native = _models.native(model, input_shape, custom_objects)
    report, _, _ = _native.inspect(
        native, made, target, board, path_or_none(dump_results), path_or_none(plot), path_or_none(dump_model), verbose
    )
    return results.Inspection(report)


def estimate(
    model: Any, *, target: Optional[str] = None, board: Optional[str] = None, clock: Optional[str] = None,
    cores: Optional[int] = None, trace: Any = None, input_shape: Any = None,
) -> results.Estimate:
    """Says how fast a network will be, without data or training."""
    native = _models.native(model, input_shape)
    return results.Estimate(_native.estimate(native, target, board, clock, cores, path_or_none(trace)))


def analyze(
    model: Any, calib: Any, strategy: Strategy = "pof2s", *, data: Any = None, samples: int = 32, target: Optional[str] = None,
    quick: bool = False, custom_strategy: Any = None, batch_size: int = 32, steps: Optional[int] = None, seed: int = 0,
    **settings: Any,
) -> results.Analysis:
    """Says where quantization hurts, why, and what helps by how much; ``.strategy`` has the remedies."""
    made, _ = _strategy(strategy, custom_strategy, settings)
    if target is not None:
        _native.targets(target)
    native = _models.native(model, data=calib)
    own = _models.samples(calib, native, steps)
    measured = None if data is None else _models.samples(data, native)
    report, proposed = _native.analyze(
        native, made, own, own.batch_size or number("batch_size", batch_size), count("steps", steps), seed,
        number("samples", samples), measured, target is not None, not quick,
    )
    analysis = results.Analysis(report)
    analysis.strategy = None if proposed is None else json.loads(proposed)
    return analysis


def report(
    model: Any, *, output: Any = None, target: Optional[str] = None, board: Optional[str] = None, calib: Any = None,
    strategy: Strategy = "pof2s", batch_size: int = 32, steps: Optional[int] = None, **settings: Any,
) -> results.Page:
    """A page about a model on a target: placement, time, and with ``calib`` accuracy."""
    made, _ = _strategy(strategy, None, settings)
    native = _models.native(model, data=calib)
    data = None if calib is None else _models.samples(calib, native, steps)
    size = (data.batch_size if data is not None else None) or batch_size
    values, page = _native.report(native, made, path_or_none(output), target, board, data, size, count("steps", steps))
    own = results.Page(values)
    own.html = page
    return own


def dump(
    model: Any, data: Any = None, *, output_dir: Any = "dump_results", dump_float: bool = False, weights_only: bool = False,
    samples: Optional[int] = None, numerics: str = "dpu",
) -> results.Dump:
    """Writes every tensor of a quantized model as integers, in the vendor's folder layout.

    ``samples``: how many, at most; of an iterable of batches its first batch, of arrays one, if it is not given.
    """
    native = _models.native(model)
    own = None if data is None or weights_only else dataset(data, native.inputs, 1)
    count = samples or (own.batch_size if own is not None else None) or 1
    return results.Dump(
        _native.dump(native, os.fspath(output_dir), own, dump_float, weights_only, number("samples", count), numerics)
    )


def export(model: Any, output: Any, format: Optional[str] = None, *, opset: int = 13, qdq: bool = False) -> results.Information:
    """Writes a model in another format: h5, onnx, tf (a folder), pb or c, told by the name's ending where it is not given."""
    path = os.fspath(output)
    kind = format or os.path.splitext(path)[1].lstrip(".") or "tf"
    return results.Information(_models.native(model).export(path, kind, opset, qdq))


def compare(first: Any, second: Any) -> results.Comparison:
    """Compares two dump folders; true where they are the same."""
    values, equal = _native.compare(os.fspath(first), os.fspath(second))
    own = results.Comparison(values)
    own.equal = equal
    return own


def diff(a: Any, b: Any) -> results.Difference:
    """Says what differs between two quantized models, strategies or compiled models in files."""
    return results.Difference(_native.diff(os.fspath(a), os.fspath(b)))


def info(path: Any) -> results.Information:
    """Says what a file is, and how an application feeds it."""
    return results.Information(_native.info(os.fspath(path)))


def targets(name: Optional[str] = None) -> results.Targets:
    """All DPU targets and boards, or one."""
    return results.Targets(_native.targets(name))


def settings() -> List[Dict[str, Any]]:
    """Every keyword argument of ``quantize``: name, what it takes, default, meaning."""
    keys = ("name", "takes", "default", "of_call", "doc", "old", "works")
    return [{**dict(zip(keys, row)), "default": json.loads(row[2])} for row in _native.settings()]
