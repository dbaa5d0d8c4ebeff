"""Datasets of every kind behind one interface: ``len(data)`` samples, ``data.batch(start, count)`` arrays.

Arrays are read in place. What can be read only once (generators, ``tf.data``, loaders) is kept in a temporary file, so that
memory does not grow with its length; every pass then sees the same batches.
"""

from __future__ import annotations

import os
import tempfile
from itertools import islice
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple, Union

import numpy as np

from .errors import InvalidDataset
from .pictures import Pictures, Samples

#: Names and shapes of a model's inputs, without the batch.
Inputs = Sequence[Tuple[str, Sequence[int]]]


def is_array(value: Any) -> bool:
    """Whether numpy makes an array of it: an array, a tensor of a framework."""
    return hasattr(value, "__array__") and hasattr(value, "shape") and len(getattr(value, "shape")) > 0


def array(value: Any) -> Any:
    """A numpy array of it, without a copy where that is possible."""
    if isinstance(value, (np.ndarray, Samples)):
        return value
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    try:
        made = np.asarray(value)
    except Exception as e:
        raise InvalidDataset(f"{type(value).__name__} makes no array: {e}") from e
    if made.dtype.kind == "c":
        raise InvalidDataset("complex numbers are no samples")
    if made.dtype == object or made.dtype.kind not in "biuf":
        # bfloat16 and its like have no kind of numpy's own.
        try:
            return made.astype(np.float32)
        except (TypeError, ValueError) as e:
            raise InvalidDataset(f"data of type {made.dtype} are no numbers") from e
    return made


class Dataset:
    """Samples in arrays, one for each input of a model, with labels where there are some."""

    def __init__(
        self,
        arrays: Sequence[Any],
        labels: Optional[List[Any]] = None,
        batch_size: Optional[int] = None,
    ) -> None:
        self.arrays = list(arrays)
        self.labels = labels
        #: The size of the batches that the data came in; None where the user chooses.
        self.batch_size = batch_size
        lengths = {len(own) for own in self.arrays}
        if len(lengths) > 1:
            raise InvalidDataset(f"the inputs have different numbers of samples: {sorted(lengths)}")
        if not self.arrays or lengths == {0}:
            raise InvalidDataset("the data has no samples")

    def __len__(self) -> int:
        return len(self.arrays[0])

    def batch(self, start: int, count: int) -> List["np.ndarray[Any, Any]"]:
        """Samples ``start .. start + count`` of every input, float32 and in C order."""
        return [np.ascontiguousarray(own[start : start + count], dtype=np.float32) for own in self.arrays]

    def chosen(self, numbers: "np.ndarray[Any, Any]") -> List["np.ndarray[Any, Any]"]:
        """The samples of these numbers."""
        return [np.ascontiguousarray(own[numbers], dtype=np.float32) for own in self.arrays]

    def first(self, count: int) -> "Dataset":
        """The first samples alone."""
        labels = None if self.labels is None else [own[:count] for own in self.labels]
        return Dataset([own[:count] for own in self.arrays], labels, self.batch_size)


def _of_file(path: str, key: Optional[str] = None) -> Any:
    if path.endswith(".npz"):
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive)
            if key is None and len(names) > 1:
                return {name: archive[name] for name in names}
            if (key or names[0]) not in names:
                raise InvalidDataset(f"{path}: there is no array `{key}`; its arrays are {', '.join(names)}")
            return archive[key or names[0]]
    return np.load(path, mmap_mode="r", allow_pickle=False)


def of_path(path: str) -> Any:
    """Arrays of a ``.npy``, a ``.npz`` (``FILE.npz:KEY`` for one of its arrays), a folder of ``.npy`` or of pictures."""
    name, _, key = path.rpartition(":")
    try:
        if name.endswith(".npz") and not os.path.exists(path):
            return _of_file(name, key)
        if os.path.isdir(path):
            files = sorted(own for own in os.listdir(path) if own.endswith(".npy") and not own.startswith("."))
            if not files:
                return Pictures(path)
            return np.stack([np.load(os.path.join(path, own), allow_pickle=False) for own in files])
        return _of_file(path)
    except InvalidDataset:
        raise
    except (OSError, ValueError, EOFError, KeyError) as e:
        raise InvalidDataset(f"{path}: {e}") from e


def _inputs_of(value: Any, inputs: Inputs) -> List[Any]:
    """The arrays of a batch or of a whole dataset in the order of the model's inputs."""
    names = [name for name, _ in inputs]
    if isinstance(value, Pictures):
        value = value.sized(inputs[0][1]) if len(inputs) == 1 else [value]
    if isinstance(value, dict):
        shapes = dict(inputs)
        value = {
            name: own.sized(shapes[name]) if isinstance(own, Pictures) and name in shapes else own
            for name, own in value.items()
        }
    if isinstance(value, dict):
        missing = [name for name in names if name not in value]
        if missing and len(value) == len(names) == 1:
            return [array(next(iter(value.values())))]
        if missing:
            raise InvalidDataset(f"the data has no array for {', '.join(missing)}; it has {', '.join(map(str, value))}")
        return [array(value[name]) for name in names]
    if isinstance(value, (list, tuple)):
        if len(value) == len(names) and all(is_array(own) for own in value) and not _is_sample(value[0], inputs[0]):
            return [array(own) for own in value]
        if len(names) == 1:
            return [array(np.asarray([array(own) for own in value]) if len(value) and is_array(value[0]) else value)]
        raise InvalidDataset(f"the data has {len(value)} arrays, and the model has the inputs {', '.join(names)}")
    return [array(value)]


def _is_sample(value: Any, own: Tuple[str, Sequence[int]]) -> bool:
    return is_array(value) and tuple(value.shape) == tuple(own[1]) and len(own[1]) > 1


def _split(batch: Any, inputs: Inputs) -> Tuple[Any, Optional[Any]]:
    """Samples and labels of a batch, as Keras takes them apart: a tuple is (x, y) or (x, y, weights)."""
    if isinstance(batch, tuple) or (isinstance(batch, list) and len(inputs) == 1 and 1 < len(batch) <= 3):
        if len(batch) == 1:
            return batch[0], None
        one_each = len(inputs) > 1 and len(batch) == len(inputs) and all(is_array(own) for own in batch)
        if len(batch) in (2, 3) and not one_each:
            return batch[0], batch[1]
    return batch, None


def _labels(value: Any) -> List[Any]:
    if isinstance(value, dict):
        return [array(own) for own in value.values()]
    if isinstance(value, (list, tuple)) and value and all(is_array(own) for own in value):
        return [array(own) for own in value]
    return [array(value)]


class _Spool:
    """Arrays of a temporary file, which grows batch by batch."""

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile(prefix="shiftwise-")
        self.shape: Optional[Tuple[int, ...]] = None
        self.length = 0

    def add(self, batch: "np.ndarray[Any, Any]") -> None:
        batch = np.ascontiguousarray(batch, dtype=np.float32)
        if self.shape is None:
            self.shape = batch.shape[1:]
        if batch.shape[1:] != self.shape:
            raise InvalidDataset(f"a batch has samples of shape {batch.shape[1:]}, and the first one of {self.shape}")
        self.file.write(batch.tobytes())
        self.length += len(batch)

    def array(self) -> "np.ndarray[Any, Any]":
        shape = (self.length, *(self.shape or ()))
        if 0 in shape:
            return np.zeros(shape, np.float32)
        self.file.flush()
        return np.memmap(self.file, dtype=np.float32, mode="r", shape=shape)


def _of_batches(batches: Iterable[Any], inputs: Inputs, steps: Optional[int]) -> Dataset:
    spools: List[_Spool] = []
    labels: List[List[Any]] = []
    first: Optional[int] = None
    unbatched: Optional[bool] = None
    for batch in islice(batches, steps):
        x, y = _split(batch, inputs)
        arrays = _inputs_of(x, inputs)
        if unbatched is None:
            unbatched = all(own.ndim == len(shape) for own, (_, shape) in zip(arrays, inputs))
        if unbatched:
            # An iterable of samples: each is a batch of one.
            arrays = [own[None] for own in arrays]
            y = None if y is None else [own[None] for own in _labels(y)]
        if not spools:
            spools = [_Spool() for _ in arrays]
            first = len(arrays[0])
        if len(arrays) != len(spools):
            raise InvalidDataset(f"a batch has {len(arrays)} arrays, and the first one had {len(spools)}")
        for spool, own in zip(spools, arrays):
            if own.ndim == 0:
                raise InvalidDataset("a batch is a single number; [n, ...] is expected")
            spool.add(own)
        if y is not None:
            labels.append(_labels(y))
    if not spools:
        raise InvalidDataset("the data has no samples")
    joined = [np.concatenate(column) for column in zip(*labels)] if labels else None
    return Dataset([spool.array() for spool in spools], joined, first)


def _indexed(sequence: Any) -> Iterable[Any]:
    """The batches of a keras Sequence or PyDataset, which iteration may not end."""
    for k in range(len(sequence)):
        yield sequence[k]


def dataset(
    data: Any,
    inputs: Inputs,
    steps: Optional[int] = None,
    labels: Any = None,
) -> Dataset:
    """Samples for a model's inputs.

    ``data`` is an array, a list or dict of arrays, a path, or any iterable of batches with or without labels; ``steps``
    bounds the batches of an iterable.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, (str, os.PathLike)):
        data = of_path(os.fspath(data))
    if data is None:
        raise InvalidDataset("there is no data")
    if isinstance(data, (int, float, bytes, bool)):
        raise InvalidDataset(f"{data!r} is no data; an array or an iterable of batches is expected")
    given = None if labels is None else _labels(labels)
    if isinstance(data, (list, tuple)) and len(data) and not is_array(data[0]) and isinstance(data[0], (list, tuple, dict)):
        if isinstance(data, list) and isinstance(data[0], (tuple, dict)):
            return _of_batches(data, inputs, steps)
    if isinstance(data, Pictures) and given is None and data.labels is not None:
        given = [data.labels]
    if isinstance(data, tuple) and labels is None:
        data, y = _split(data, inputs)
        given = None if y is None else _labels(y)
    if is_array(data) or isinstance(data, (dict, list, tuple, Pictures)):
        return Dataset(_inputs_of(data, inputs), given)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        made = _of_batches(_indexed(data), inputs, steps)
    elif hasattr(data, "__iter__"):
        made = _of_batches(data, inputs, steps)
    else:
        raise InvalidDataset(f"{type(data).__name__} is no data; an array or an iterable of batches is expected")
    if given is not None:
        made.labels = given
    return made


def labels_like(labels: Union[Any, None], count: int) -> List[Any]:
    """Labels as a list of arrays of this length."""
    made = [] if labels is None else _labels(labels)
    for own in made:
        if len(own) != count:
            raise InvalidDataset(f"{count} samples and {len(own)} labels; one label per sample is expected")
    return made


def shapes_of(data: Any, inputs: Optional[Dict[str, Any]] = None) -> List[Tuple[Optional[str], List[int]]]:
    """The shapes of samples that data tells by itself, batch first, for models that leave their size open."""
    if isinstance(data, (str, os.PathLike)):
        data = of_path(os.fspath(data))
    if isinstance(data, dict):
        return [(name, [1, *own.shape[1:]]) for name, own in data.items() if is_array(own)]
    if isinstance(data, (list, tuple)) and data and is_array(data[0]):
        return [(None, [1, *data[0].shape[1:]])]
    return [(None, [1, *data.shape[1:]])] if is_array(data) else []
