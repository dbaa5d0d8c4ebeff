"""Models without Keras: what a Keras model does, done by Rust."""

from __future__ import annotations

import json
import os
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np

from . import _fit, _native, _strategies, losses, results
from ._arguments import count
from ._files import write_file
from .data import Dataset, dataset, labels_like
from .deployable import compiled
from .errors import InvalidOption


class Layer:
    """A layer of a model."""

    def __init__(self, model: "Model", row: Tuple[str, str, List[int], int, List[str]]) -> None:
        self._model = model
        self.name, self.class_name, self.shape, self._count, self.inbound = row

    @property
    def output_shape(self) -> Tuple[Optional[int], ...]:
        """Shape of the result; None stands for the batch."""
        return (None, *self.shape)

    @property
    def weights(self) -> Dict[str, Any]:
        """Weights by name, as the model's file has them: before quantization."""
        return dict(self._model._native.weights(self.name))

    def get_weights(self) -> List[Any]:
        """The weights in order."""
        return [value for _, value in self._model._native.weights(self.name)]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Gives the layer other weights of the same shapes."""
        made = [np.ascontiguousarray(own, dtype=np.float32) for own in weights]
        self._model._replace(self._model._native.with_weights(self.name, made))

    def count_params(self) -> int:
        """Number of weights."""
        return self._count

    def __repr__(self) -> str:
        return f"<{self.class_name} {self.name} {self.output_shape}>"


class Tensor:
    """Name and shape of an input or output."""

    def __init__(self, name: str, shape: Sequence[int]) -> None:
        self.name = name
        self.shape: Tuple[Optional[int], ...] = (None, *shape)
        self.dtype = "float32"

    def __repr__(self) -> str:
        return f"<{self.name} {self.shape}>"


class Model:
    """A float or quantized network, or one in training, that Rust computes."""

    def __init__(self, native: "_native.Model", report: Any = None) -> None:
        self._native = native
        self._report = None if report is None else results.Quantization(report)
        self._trainer: Optional[_native.Trainer] = None
        self._compiled: Optional[Tuple[Any, List[Any], List[Any]]] = None
        self.optimizer: Any = None
        self.stop_training = False
        self._strategy: Any = None

    def _replace(self, native: "_native.Model") -> None:
        self._native, self._trainer = native, None

    def _now(self) -> "_native.Model":
        """The network with what training has learned so far."""
        if self._trainer is not None:
            self._native = self._trainer.model(self._native)
        return self._native

    # What it is

    @property
    def kind(self) -> str:
        """``float``, ``quantized`` or ``training``."""
        return self._native.kind

    @property
    def name(self) -> str:
        """The network's name."""
        return self._native.name

    @property
    def inputs(self) -> List[Tensor]:
        """The inputs."""
        return [Tensor(*own) for own in self._native.inputs]

    @property
    def outputs(self) -> List[Tensor]:
        """The outputs, with the names of the user's layers."""
        return [Tensor(*own) for own in self._native.outputs]

    @property
    def input_shape(self) -> Any:
        """Shape of the input, or a list of shapes."""
        shapes = [own.shape for own in self.inputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def output_shape(self) -> Any:
        """Shape of the output, or a list of shapes."""
        shapes = [own.shape for own in self.outputs]
        return shapes[0] if len(shapes) == 1 else shapes

    @property
    def report(self) -> Optional[results.Quantization]:
        """What quantizing did; None for a model that was read."""
        return self._report

    @property
    def layers(self) -> List[Layer]:
        """The layers in order."""
        return [Layer(self, row) for row in self._now().layers()]

    def get_layer(self, name: Optional[str] = None, index: Optional[int] = None) -> Layer:
        """The layer of a name or place."""
        layers = self.layers
        if index is not None:
            if not -len(layers) <= index < len(layers):
                raise InvalidOption(f"the model has {len(layers)} layers; there is none at {index}")
            return layers[index]
        for own in layers:
            if own.name == name:
                return own
        raise InvalidOption(f"the model has no layer `{name}`")

    def count_params(self) -> int:
        """Number of weights."""
        return sum(own.count_params() for own in self.layers)

    def get_weights(self) -> List[Any]:
        """All weights, layer by layer."""
        return [own for layer in self.layers for own in layer.get_weights()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Gives all layers other weights of the same shapes."""
        given = list(weights)
        counts = [(own.name, len(own.get_weights())) for own in self.layers]
        if sum(count for _, count in counts) != len(given):
            raise InvalidOption(f"the model has {sum(n for _, n in counts)} weights, and {len(given)} are given")
        native = self._now()
        for name, count in counts:
            if count:
                own = [np.ascontiguousarray(w, dtype=np.float32) for w in given[:count]]
                native = native.with_weights(name, own)
            given = given[count:]
        self._replace(native)

    def quantize_info(self) -> List[Dict[str, Any]]:
        """What is quantized: a dict for each tensor."""
        return json.loads(self._now().quantize_info())  # type: ignore[no-any-return]

    def _rows(self) -> List[Tuple[str, str, str]]:
        return [(f"{own.name} ({own.class_name})", str(own.output_shape), str(own.count_params())) for own in self.layers]

    def summary(self, print_fn: Any = print) -> None:
        """Prints the layers as a table."""
        print_fn(repr(self))

    def __repr__(self) -> str:
        head = ("Layer (type)", "Output Shape", "Param #")
        rows = [head, *self._rows()]
        widths = [max(len(row[k]) for row in rows) for k in range(3)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        return "\n".join([f'Model: "{self.name}" ({self.kind})', *lines, f"Total params: {self.count_params()}"])

    def _repr_html_(self) -> str:
        keys = ("layer", "shape", "weights")
        return results.table_html([dict(zip(keys, row)) for row in self._rows()])

    # What it computes

    def _data(self, data: Any, steps: Optional[int] = None, labels: Any = None) -> Dataset:
        return dataset(data, self._native.inputs, steps, labels)

    def _outputs(self, data: Dataset, batch_size: Optional[int], numerics: str, verbose: Any = 0) -> List[Any]:
        made: List[List[Any]] = []
        size = data.batch_size or count("batch_size", batch_size) or 32
        tell = _strategies.progress("computing") if verbose not in (0, "0") else None
        done = [0]

        def each(batch: List[Any]) -> None:
            made.append(batch)
            done[0] += len(batch[0])
            if tell is not None:
                tell(done[0], len(data))

        self._now().predict(data, size, each, numerics)
        return [np.concatenate(column) for column in zip(*made)]

    def predict(
        self, x: Any, batch_size: Optional[int] = None, verbose: Any = 0, steps: Optional[int] = None,
        numerics: Optional[str] = None,
    ) -> Any:
        """The output of every sample, or a list of outputs.

        ``numerics``: ``vendor`` (float operations on quantized values, the default), ``dpu`` (exact integers) or ``float``
        (without quantizers).
        """
        made = self._outputs(self._data(x, steps), batch_size, numerics or "vendor", verbose)
        return made[0] if len(made) == 1 else made

    def __call__(self, x: Any, training: bool = False) -> Any:
        return self.predict(x)

    def evaluate(
        self, x: Any, y: Any = None, batch_size: Optional[int] = None, verbose: Any = 0, steps: Optional[int] = None,
        return_dict: bool = False, numerics: Optional[str] = None,
    ) -> Any:
        """Loss and metrics of :meth:`compile` on labelled data; without ``compile``, the share of right answers."""
        data = self._data(x, steps, y)
        labels = labels_like(data.labels, len(data))
        if not labels:
            raise InvalidOption("`evaluate` needs labels: pass `y`, or batches of (x, y)")
        outputs = self._outputs(data, batch_size, numerics or "vendor", verbose)
        logs = self._scores(labels, outputs)
        if return_dict:
            return logs
        values = list(logs.values())
        return values[0] if len(values) == 1 else values

    def _scores(self, labels: List[Any], outputs: List[Any]) -> Dict[str, float]:
        own, weights, metrics = self._compiled or ([], [], ["accuracy"])
        logs: Dict[str, float] = {}
        pairs = list(zip(labels, outputs))
        if own:
            total = 0.0
            for loss, weight, (y, p) in zip(own, weights, pairs):
                if loss is not None:
                    total += losses.value(loss, y, p, weight)
            logs["loss"] = total
        for given in metrics:
            name, function = losses.metric(given)
            y, p = pairs[0]
            logs[name] = function(y, p)
        return logs

    # How it is trained

    def compile(
        self, optimizer: Any = "adam", loss: Any = None, metrics: Any = None, loss_weights: Any = None,
        *, target: Optional[str] = None, board: Optional[str] = None, strict: bool = False, fast: bool = False,
        **_ignored: Any,
    ) -> Any:
        """As Keras' ``compile``: how the model is trained and measured.

        With ``target`` or ``board`` the quantized model becomes a program instead, which is returned: see
        :func:`shiftwise.compile`.
        """
        if target is not None or board is not None:
            return compiled(self._now(), target, board, strict, fast)
        count = len(self.outputs)
        own = self._by_output(loss, count)
        weights = [1.0 if w is None else float(w) for w in self._by_output(loss_weights, count)]
        self._compiled = (own if loss is not None else [], weights, losses.metrics_list(metrics))
        self.optimizer = _fit.Optimizer(optimizer, self._set_rate)
        self._now()
        self._trainer = None
        return None

    def _set_rate(self, rate: float) -> None:
        if self._trainer is not None:
            self._trainer.set_rates(rate)

    def _by_output(self, given: Any, count: int) -> List[Any]:
        if isinstance(given, dict):
            names = [own.name for own in self.outputs]
            unknown = [name for name in given if name not in names]
            if unknown:
                raise InvalidOption(f"there is no output {', '.join(unknown)}; the outputs are {', '.join(names)}")
            return [given.get(name) for name in names]
        if isinstance(given, (list, tuple)):
            if len(given) != count:
                raise InvalidOption(f"the model has {count} outputs, and {len(given)} values are given")
            return list(given)
        return [given] * count

    def _train(self) -> "_native.Trainer":
        if self._trainer is None:
            if self._compiled is None or not self._compiled[0]:
                raise InvalidOption("call `compile(optimizer, loss)` before training")
            own, weights, _ = self._compiled
            names = [losses.loss_name(loss) for loss in own]
            optimizer = self.optimizer
            self._native = self._native.for_training()
            self._trainer = _native.Trainer(
                self._native, names, weights, optimizer.name, optimizer.learning_rate, optimizer.momentum,
                optimizer.weight_decay,
            )
        return self._trainer

    def _targets(self, labels: Sequence[Any]) -> List[Any]:
        own = self._compiled[0] if self._compiled else []
        made: List[Any] = []
        for loss, y, output in zip(own, labels, self.outputs):
            name = losses.loss_name(loss)
            if name is None:
                made.append(None)
            elif name == "sparse_categorical_crossentropy":
                made.append(np.ascontiguousarray(np.asarray(y).reshape(-1), dtype=np.int64))
            else:
                shape = (len(y), *[d for d in output.shape[1:] if d is not None])
                made.append(np.ascontiguousarray(np.asarray(y).reshape(shape), dtype=np.float32))
        return made

    def _judge(self) -> _fit.Judge:
        own, weights, metrics = self._compiled or ([], [], [])
        return _fit.Judge([loss if losses.loss_name(loss) is None else None for loss in own], weights, metrics)

    def _step(self, batch: List[Any], labels: List[Any], judge: _fit.Judge) -> float:
        trainer = self._train()
        self.optimizer.before(trainer.steps)
        judge.labels = labels
        return trainer.step(batch, self._targets(labels), judge if judge.is_needed else None)

    def train_on_batch(self, x: Any, y: Any, **_ignored: Any) -> float:
        """Makes one step; returns the batch's loss before it."""
        data = self._data(x, labels=y)
        return self._step(data.batch(0, len(data)), labels_like(data.labels, len(data)), self._judge())

    def fit(
        self, x: Any, y: Any = None, batch_size: Optional[int] = None, epochs: int = 1, verbose: Any = 1,
        callbacks: Any = None, validation_data: Any = None, shuffle: bool = True,
        steps_per_epoch: Optional[int] = None, initial_epoch: int = 0, validation_batch_size: Optional[int] = None,
        seed: int = 0, **_ignored: Any,
    ) -> _fit.History:
        """Trains the model; batches of an iterable keep their order, samples of arrays are shuffled by ``seed``.

        ``callbacks``: Keras' own, or functions of an epoch's number and values.
        """
        steps = count("steps_per_epoch", steps_per_epoch)
        data = self._data(x, steps * max(1, epochs) if steps and hasattr(x, "__next__") else None, y)
        labels = labels_like(data.labels, len(data))
        if not labels:
            raise InvalidOption("`fit` needs labels: pass `y`, or batches of (x, y)")
        self._train()
        size = data.batch_size or count("batch_size", batch_size) or 32
        batches, judge = _fit.Batches(data, labels, size, shuffle, seed, steps), self._judge()
        params = {"epochs": epochs, "steps": len(batches), "verbose": verbose}
        loop, history = _fit.Callbacks(self, callbacks, params), _fit.History()
        history.params, history.model, self.stop_training = params, self, False
        loop.call("on_train_begin", {})
        for number in range(initial_epoch, epochs):
            loop.call("on_epoch_begin", number, {})
            logs = _fit.epoch(
                number, batches, lambda batch, own: self._step(batch, own, judge), loop, judge, lambda: self.stop_training
            )
            if validation_data is not None:
                scores = self.evaluate(*_fit.pair(validation_data), batch_size=validation_batch_size, return_dict=True)
                logs.update({f"val_{key}": value for key, value in scores.items()})
            history.add(number, logs)
            if verbose not in (0, "0"):
                told = " - ".join(f"{key}: {value:.4f}" for key, value in logs.items())
                print(f"Epoch {number + 1}/{epochs} - {told}")
            loop.call("on_epoch_end", number, dict(logs))
            if self.stop_training:
                break
        self._now()
        loop.call("on_train_end", {})
        return history

    # Where it goes

    def save(self, path: Any, overwrite: bool = True, save_format: Optional[str] = None, **_ignored: Any) -> None:
        """Writes the model: ONNX for a name that ends in ``.onnx``, a frozen graph for ``.pb``, a SavedModel for a name without
        an ending or with ``save_format="tf"``, else the vendor's Keras file (HDF5)."""
        path = os.fspath(path)
        if not overwrite and os.path.exists(path):
            raise InvalidOption(f"{path} exists, and `overwrite` is False")
        if save_format == "onnx" or path.endswith(".onnx"):
            write_file(path, self.to_onnx())
            return
        if save_format in ("tf", "pb", "c") or path.endswith(".pb") or not os.path.splitext(path)[1]:
            self._now().export(path, save_format or ("pb" if path.endswith(".pb") else "tf"))
            return
        write_file(path, self._now().h5(path))

    def save_weights(self, path: Any, overwrite: bool = True, **ignored: Any) -> None:
        """Writes the model, whose weights :meth:`load_weights` takes."""
        path = os.fspath(path)
        if not overwrite and os.path.exists(path):
            raise InvalidOption(f"{path} exists, and `overwrite` is False")
        write_file(path, self._now().h5(path))

    def load_weights(self, path: Any, **_ignored: Any) -> None:
        """Takes the weights of a file that :meth:`save` or :meth:`save_weights` wrote."""
        self._replace(_native.Model.open(os.fspath(path), [], [], self.kind == "training"))

    def to_onnx(self, opset: int = 13, qdq: bool = False) -> bytes:
        """The bytes of an ONNX file."""
        return self._now().onnx(opset, qdq)

    def to_h5(self) -> bytes:
        """The bytes of the vendor's Keras file."""
        return self._now().h5("model.h5")
