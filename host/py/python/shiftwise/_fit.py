"""The loop of training: Keras' callbacks and history round the steps that Rust makes."""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Tuple

import numpy as np

from . import _strategies, losses, results
from .data import Dataset
from .errors import InvalidOption


class Optimizer:
    """The settings of the trainer's optimizer, with Keras' names for callbacks."""

    def __init__(self, given: Any, changed: Callable[[float], None]) -> None:
        self.name, self._rate, self.momentum, self.weight_decay = losses.optimizer_of(given)
        schedule = getattr(given, "_learning_rate", None)
        self._schedule = schedule if callable(schedule) and not hasattr(schedule, "numpy") else None
        self._changed = changed

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self._rate

    @learning_rate.setter
    def learning_rate(self, rate: Any) -> None:
        self._rate = float(np.asarray(rate.numpy() if hasattr(rate, "numpy") else rate))
        self._changed(self._rate)

    lr = learning_rate

    def before(self, step: int) -> None:
        """Follows a schedule of Keras."""
        if self._schedule is not None:
            self.learning_rate = float(np.asarray(self._schedule(step)))


class History:
    """What ``fit`` returns: ``history`` has a list for each value, ``epoch`` the numbers of the epochs."""

    def __init__(self) -> None:
        self.history: Dict[str, List[float]] = {}
        self.epoch: List[int] = []
        self.params: Dict[str, Any] = {}
        self.model: Any = None

    def add(self, epoch: int, logs: Mapping[str, float]) -> None:
        """Takes the values of an epoch."""
        self.epoch.append(epoch)
        for key, value in logs.items():
            self.history.setdefault(key, []).append(value)

    def __repr__(self) -> str:
        last = ", ".join(f"{key}={values[-1]:.4g}" for key, values in self.history.items())
        return f"<History of {len(self.epoch)} epochs: {last}>" if self.epoch else "<History of no epochs>"

    def _repr_html_(self) -> str:
        rows = [{"epoch": n + 1, **{key: own[k] for key, own in self.history.items()}} for k, n in enumerate(self.epoch)]
        return results.table_html(rows)


class Callbacks:
    """Callbacks of Keras, and plain functions that are called after every epoch with its number and values."""

    def __init__(self, model: Any, given: Any, params: Dict[str, Any]) -> None:
        given = [] if given is None else given
        self.all: List[Any] = list(given) if isinstance(given, Iterable) else [given]
        self.shows = params.get("verbose") not in (0, "0", 2)
        for own in self.all:
            if not callable(own) and not hasattr(own, "set_model"):
                raise InvalidOption(f"a callback is {own!r}; one of Keras, or a function of epoch and values, is expected")
            if hasattr(own, "set_params"):
                own.set_params(params)
            if hasattr(own, "set_model"):
                own.set_model(model)

    def call(self, event: str, *arguments: Any) -> None:
        """Tells all of them; a plain function is told of ends of epochs alone."""
        for own in self.all:
            method = getattr(own, event, None)
            if method is not None:
                method(*arguments)
            elif event == "on_epoch_end" and callable(own):
                own(*arguments)


class Judge:
    """Losses that are Python's own, and metrics, of the outputs that a step sees.

    ``own``: a loss for each output, or None where Rust has it by name or where the output is not trained.
    """

    def __init__(self, own: List[Any], weights: List[float], metrics: List[Any]) -> None:
        self.own, self.weights = own, weights
        self.metrics = [losses.metric(given) for given in metrics]
        self.labels: List[Any] = []
        self.sums: Dict[str, float] = {}
        self.count = 0

    @property
    def is_needed(self) -> bool:
        """Whether there is anything for it to see."""
        return bool(self.metrics) or any(loss is not None for loss in self.own)

    def begin(self) -> None:
        """Forgets the epoch before."""
        self.sums, self.count = {}, 0

    def __call__(self, k: int, output: Any) -> Optional[Tuple[float, Any]]:
        if k >= len(self.labels):
            return None
        y = self.labels[k]
        if k == 0:
            self.count += len(output)
            for name, function in self.metrics:
                self.sums[name] = self.sums.get(name, 0.0) + function(y, output) * len(output)
        own = self.own[k] if k < len(self.own) else None
        return None if own is None else losses.own_loss(own, y, output, self.weights[k])

    def logs(self) -> Dict[str, float]:
        """The metrics' means over the epoch so far."""
        return {name: total / max(1, self.count) for name, total in self.sums.items()}


class Batches:
    """The batches of a dataset, in an order of its own for every epoch where samples may be shuffled."""

    def __init__(self, data: Dataset, labels: List[Any], size: int, shuffle: bool, seed: int, most: Optional[int]) -> None:
        self.data, self.labels, self.size, self.seed, self.most = data, labels, size, seed, most
        # The batches of an iterable keep their order.
        self.shuffle = shuffle and not data.batch_size

    def __len__(self) -> int:
        whole = -(-len(self.data) // self.size)
        return whole if self.most is None else min(whole, self.most)

    def of(self, epoch: int) -> Iterator[Tuple[List[Any], List[Any]]]:
        """Samples and labels, batch by batch."""
        count = len(self.data)
        order = np.random.default_rng((self.seed, epoch)).permutation(count) if self.shuffle else None
        for start in range(0, len(self) * self.size, self.size):
            if order is None:
                yield (
                    self.data.batch(start, min(self.size, count - start)),
                    [own[start : start + self.size] for own in self.labels],
                )
            else:
                chosen = np.sort(order[start : start + self.size])
                yield self.data.chosen(chosen), [own[chosen] for own in self.labels]


Step = Callable[[List[Any], List[Any]], float]


def epoch(number: int, batches: Batches, step: Step, loop: Callbacks, judge: Judge, stopped: Callable[[], bool]) -> Dict[str, float]:
    """Makes the steps of an epoch; returns the mean loss and the metrics."""
    judge.begin()
    total, seen = 0.0, 0
    tell = _strategies.progress(f"epoch {number + 1}") if loop.shows else None
    for k, (batch, target) in enumerate(batches.of(number)):
        loop.call("on_train_batch_begin", k, {})
        loss = step(batch, target)
        total, seen = total + loss * len(batch[0]), seen + len(batch[0])
        loop.call("on_train_batch_end", k, {"loss": total / seen, **judge.logs()})
        if tell is not None:
            tell(k + 1, len(batches))
        if stopped():
            break
    return {"loss": total / max(1, seen), **judge.logs()}


def pair(validation: Any) -> Tuple[Any, Any]:
    """Samples and labels of ``validation_data``; labels may be with the samples."""
    if isinstance(validation, tuple) and len(validation) in (2, 3):
        return validation[0], validation[1]
    return validation, None
