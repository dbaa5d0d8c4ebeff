"""A function for every command of the command line: keyword arguments are its flags, results are small classes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import _models, _native, _strategies, results
from .data import dataset
from .errors import InvalidOption, RunFailed, of
from .model import Model

Strategy = Any


class Deployable:
    """A compiled network: ``report`` tells its memory, layers and cycles."""

    def __init__(self, native: "_native.Deployable", report: Optional[results.Compilation] = None) -> None:
        self._native, self.report = native, report

    @property
    def target(self) -> str:
        """What it was compiled for."""
        return self._native.target

    @property
    def inputs(self) -> List[Tuple[str, List[int]]]:
        """Name and shape of every input, without the batch."""
        return self._native.inputs

    def to_bytes(self) -> bytes:
        """The bytes of its file."""
        return self._native.bytes()

    def save(self, path: Any) -> None:
        """Writes its file, whose name ends in ``.swm`` by custom."""
        self._native.save(os.fspath(path))

    def listing(self) -> str:
        """Its instructions as text."""
        return self._native.listing()

    def simulate(
        self, data: Any, samples: int = 1, functional: bool = False, clock: Optional[str] = None, trace: Any = None,
        output_dir: Any = None,
    ) -> results.Simulation:
        """Runs the first samples in the simulator: ``outputs``, and the cycles of a frame.

        ``functional``: values only, without cycles. ``trace``: a file for a timeline. ``output_dir``: where every tensor is
        written.
        """
        made = dataset(data, self.inputs, samples)
        outputs, cycles = self._native.simulate(
            made, _number("samples", samples), functional, clock, _path(trace), _path(output_dir)
        )
        own = results.Simulation(json.loads(cycles) or {})
        own.outputs = outputs
        return own

    def run(self, board: str, data: Any, samples: int = 1) -> Dict[str, Any]:
        """Runs the first samples on a board (``qemu:NAME`` or ``serial:PORT``); returns the command's report."""
        made = dataset(data, self.inputs, samples)
        with tempfile.TemporaryDirectory(prefix="shiftwise-") as folder:
            file = os.path.join(folder, "model.swm")
            self.save(file)
            arguments = ["run", file, "--board", board, "--samples", str(samples), "--output-dir", folder]
            for (name, _), own in zip(self.inputs, made.batch(0, min(samples, len(made)))):
                path = os.path.join(folder, f"{len(arguments)}.npy")
                np.save(path, own)
                arguments += ["--data", f"{name}={path}" if len(self.inputs) > 1 else path]
            return command(*arguments)

    def __repr__(self) -> str:
        return f"<Deployable for {self.target}, {len(self.to_bytes())} bytes>"

    def _repr_html_(self) -> str:
        return self.report._repr_html_() if self.report is not None else repr(self)


def _number(name: str, value: Any) -> int:
    made = _models.count(name, value)
    if made is None:
        raise InvalidOption(f"`{name}` is {value!r}; a whole number from 1 is expected")
    return made


def _path(path: Any) -> Optional[str]:
    return None if path is None else os.fspath(path)


def load_model(path: Any, input_shape: Any = None, custom_objects: Optional[Dict[str, Any]] = None, training: bool = False) -> Model:
    """Reads a model of any known format; ``training`` takes a quantized one to be trained."""
    return Model(_models.native(os.fspath(path), input_shape, custom_objects, training=training))


def load_deployable(path: Any) -> Deployable:
    """Reads a compiled network."""
    from .errors import FileProblem

    path = os.fspath(path)
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as e:
        raise FileProblem(f"{path}: {e.strerror or e}") from e
    return Deployable(_native.Deployable(path, data))


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
    size = (data.batch_size if data is not None else None) or _number("batch_size", batch_size)
    result, report = _native.quantize(
        native, made, data, size, _models.count("steps", steps), seed, _strategies.progress("calibrating")
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
    native, report = _native.compile(_models.native(model), target, board, strict, fast)
    own = results.Compilation(report)
    own._values.pop("output", None)
    return Deployable(native, own)


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
    report, _ = _native.verify(native, data, target, board, _number("samples", samples))
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
        native, made, target, board, _path(dump_results), _path(plot), _path(dump_model), verbose
    )
    return results.Inspection(report)


def estimate(
    model: Any, *, target: Optional[str] = None, board: Optional[str] = None, clock: Optional[str] = None,
    cores: Optional[int] = None, trace: Any = None, input_shape: Any = None,
) -> results.Estimate:
    """Says how fast a network will be, without data or training."""
    native = _models.native(model, input_shape)
    return results.Estimate(_native.estimate(native, target, board, clock, cores, _path(trace)))


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
        native, made, own, own.batch_size or _number("batch_size", batch_size), _models.count("steps", steps), seed,
        _number("samples", samples), measured, target is not None, not quick,
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
    values, page = _native.report(native, made, _path(output), target, board, data, size, _models.count("steps", steps))
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
        _native.dump(native, os.fspath(output_dir), own, dump_float, weights_only, _number("samples", count), numerics)
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


def binary() -> List[str]:
    """How the program ``shiftwise`` is started: the file that SHIFTWISE_BIN names, else the one in this package."""
    given = os.environ.get("SHIFTWISE_BIN")
    return [given] if given else [sys.executable, "-m", "shiftwise"]


def command(*arguments: str) -> Dict[str, Any]:
    """Runs the program with arguments, such as ``command("tune", "model.h5", ...)``; returns its JSON."""
    words = [*binary(), *map(str, arguments), "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        answer = json.loads(done.stdout)
    except ValueError as e:
        raise RunFailed(f"shiftwise {' '.join(words[-3:-1])}: {done.stderr.strip() or done.returncode}") from e
    if done.returncode == 2:
        raise of(answer["error"]["code"], answer["error"]["message"])
    return answer  # type: ignore[no-any-return]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The program itself, in this process; returns its exit code."""
    import signal

    # An interrupt ends the program as it does elsewhere, and not when Python is asked next.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.main(["shiftwise", *(sys.argv[1:] if arguments is None else arguments)])
