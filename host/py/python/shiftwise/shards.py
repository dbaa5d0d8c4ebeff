"""Work that several processes share, to the bytes of one: see ``shiftwise.ray`` for those of other machines.

Every worker gets the files it needs, does its share with the program's ``--shard``, and hands back a part; the caller joins
the parts with ``merge``. No shared disk is needed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import _models, _native
from ._arguments import number
from ._files import read_file, write_file
from .data import dataset
from .errors import InvalidOption, WrongKind
from .model import Model
from .program import command

#: The files of a run by their names.
Files = Dict[str, bytes]
#: What one worker does: the files, the arguments, which shard it is.
Task = Tuple[Files, List[str], str]
#: How a number of workers do tasks: their answers are in the tasks' order.
Map = Callable[[Callable[[Task], bytes], Sequence[Task]], List[bytes]]


def work(task: Task) -> bytes:
    """What a worker does: the bytes of its part."""
    files, arguments, shard = task
    with tempfile.TemporaryDirectory(prefix="shiftwise-") as folder:
        _put(folder, files)
        command(*arguments, "--shard", shard, "--part", "own.part", folder=folder)
        return read_file(os.path.join(folder, "own.part"))


def _put(folder: str, files: Files) -> None:
    for name, data in files.items():
        write_file(os.path.join(folder, name), data)


def threads(function: Callable[[Task], bytes], tasks: Sequence[Task]) -> List[bytes]:
    """Processes of this machine: each thread waits for one."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(function, tasks))


def _model(model: Any, name: str) -> Tuple[str, bytes]:
    """A model's file: its name and bytes."""
    if isinstance(model, (str, os.PathLike)):
        path = os.fspath(model)
        return name + os.path.splitext(path)[1], read_file(path)
    if _models.keras_of(model) is not None:
        from ._keras import bridge, flavour

        own = flavour.of(model)
        data = bridge.own_file(model) or (None if own is None else bridge.file_of(model, own))
        if data is not None:
            return f"{name}.h5", data
    native = _models.native(model)
    if native.kind != "quantized":
        raise WrongKind(f"a {native.kind} shiftwise.Model has no file that workers read: pass the model's path")
    return f"{name}.h5", native.h5(f"{name}.h5")


def _data(data: Any, native: "_native.Model", name: str) -> Tuple[Files, List[str], Any, int]:
    """Data as files, the arguments that name them, the labels, and the number of samples."""
    made = dataset(data, native.inputs)
    files, words = {}, []
    for k, ((own, _), values) in enumerate(zip(native.inputs, made.batch(0, len(made)))):
        file = f"{name}-{k}.npy"
        files[file] = _npy(values)
        words.append(file if len(made.arrays) == 1 else f"{own}={file}")
    return files, words, made.labels, len(made)


def _npy(values: Any) -> bytes:
    import io

    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


class Cluster:
    """Workers, and the commands whose work they share; results are those of one process, to the last byte."""

    def __init__(self, each: Map, workers: Callable[[], int]) -> None:
        self._map, self._workers = each, workers

    def run(self, files: Files, arguments: Sequence[str], workers: Optional[int] = None, keep: Optional[str] = None) -> Dict[str, Any]:
        """Runs a command of the program, whose arguments name ``files``; returns its report.

        ``keep``: a folder that gets what the command writes.
        """
        count = number("workers", workers) if workers is not None else max(1, self._workers())
        words = [str(own) for own in arguments]
        with tempfile.TemporaryDirectory(prefix="shiftwise-") as folder:
            _put(folder, files)
            if count == 1:
                answer = command(*words, folder=folder)
            else:
                parts = self._map(work, [(files, words, f"{k + 1}/{count}") for k in range(count)])
                names = [f"{k + 1}.part" for k in range(count)]
                _put(folder, dict(zip(names, parts)))
                answer = command("merge", *names, folder=folder)
                for name in names:
                    os.unlink(os.path.join(folder, name))
            for name in files:
                os.unlink(os.path.join(folder, name))
            if keep is not None:
                shutil.copytree(folder, keep, dirs_exist_ok=True)
        return answer

    def evaluate(
        self, model: Any, data: Any, labels: Any = None, *, workers: Optional[int] = None, numerics: str = "dpu",
        top: Optional[int] = None,
    ) -> Dict[str, Any]:
        """The share of right answers, as the command ``evaluate`` reports it."""
        name, own = _model(model, "model")
        files, words, given, count = _data(data, _models.native(model, data=data), "data")
        labels = labels if labels is not None else (given or [None])[0]
        if labels is None:
            raise InvalidOption("`evaluate` needs labels")
        classes = np.asarray(labels).reshape(-1)
        if len(classes) != count or classes.dtype.kind not in "iuf":
            raise InvalidOption(f"`labels` are {len(classes)} of type {classes.dtype} for {count} samples; a class for each is expected")
        files.update({name: own, "labels.npy": _npy(classes.astype(np.int64))})
        words = ["evaluate", name, *_each("--data", words), "--labels", "labels.npy", "--numerics", numerics]
        return self.run(files, words + ([] if top is None else ["--top", str(number("top", top))]), workers)

    def quantize(
        self, model: Any, calib: Any, strategy: str = "pof2s", *, batch_size: int = 32, steps: Optional[int] = None,
        workers: Optional[int] = None, **settings: Any,
    ) -> Model:
        """Quantizes a float model: calibration is shared. See :func:`shiftwise.quantize`."""
        name, own = _model(model, "model")
        native = _models.native(model, data=calib)
        files, words, _, _ = _data(calib, native, "calib")
        files[name] = own
        words = ["quantize", name, "--strategy", str(strategy), *_each("--calib", words)]
        words += ["--calib-batch-size", str(number("batch_size", batch_size)), "--output-dir", "made"]
        words += [] if steps is None else ["--calib-steps", str(number("steps", steps))]
        words += _each("--set", [f"{key}={json.dumps(value)}" for key, value in settings.items()])
        with tempfile.TemporaryDirectory(prefix="shiftwise-") as folder:
            answer = self.run(files, words, workers, folder)
            made = _native.Model.open(os.path.join(folder, "made", "quantized.h5"))
        return Model(made, answer if "quantize_info" in answer else None)

    def verify(
        self, model: Any, data: Any, *, target: Optional[str] = None, samples: int = 1, workers: Optional[int] = None,
    ) -> Dict[str, Any]:
        """The proof that quantizer, simulator and kernels compute the same bits, of a quantized model."""
        name, own = _model(model, "model")
        files, words, _, _ = _data(data, _models.native(model), "data")
        files[name] = own
        words = ["verify", name, *_each("--data", words), "--samples", str(number("samples", samples))]
        return self.run(files, words + ([] if target is None else ["--target", target]), workers)

    def tune(
        self, model: Any, calib: Any, data: Any, labels: Any, *, workers: Optional[int] = None, output_dir: Any = None,
        arguments: Sequence[str] = (),
    ) -> Dict[str, Any]:
        """Searches for the strategy that answers best; ``arguments`` are further ones of the command ``tune``.

        ``output_dir``: a folder for what the command writes.
        """
        name, own = _model(model, "model")
        native = _models.native(model, data=calib)
        files, words, _, _ = _data(calib, native, "calib")
        more, measured, _, _ = _data(data, native, "data")
        files.update({**more, name: own, "labels.npy": _npy(np.asarray(labels).reshape(-1).astype(np.int64))})
        words = ["tune", name, *_each("--calib", words), *_each("--data", measured), "--labels", "labels.npy", *arguments]
        return self.run(files, words, workers, None if output_dir is None else os.fspath(output_dir))


def _each(flag: str, values: Sequence[str]) -> List[str]:
    return [word for value in values for word in (flag, value)]


#: Processes of this machine.
local = Cluster(threads, lambda: os.cpu_count() or 1)
