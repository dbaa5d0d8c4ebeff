"""Compiled networks."""

from __future__ import annotations

import json
import os
import tempfile
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from . import _native, results
from ._arguments import number, path_or_none
from ._files import read_file
from .data import dataset
from .program import command


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
            made, number("samples", samples), functional, clock, path_or_none(trace), path_or_none(output_dir)
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


def compiled(
    native: "_native.Model", target: Optional[str], board: Optional[str], strict: bool, fast: bool
) -> Deployable:
    """A quantized network's program: see :func:`shiftwise.compile`."""
    made, report = _native.compile(native, target, board, strict, fast)
    own = results.Compilation(report)
    own._values.pop("output", None)
    return Deployable(made, own)


def load_deployable(path: Any) -> Deployable:
    """Reads a compiled network."""
    path = os.fspath(path)
    return Deployable(_native.Deployable(path, read_file(path)))
