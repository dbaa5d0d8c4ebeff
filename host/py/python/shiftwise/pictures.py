"""Folders of pictures as data: PNG, JPEG and BMP, prepared as the command line prepares them."""

from __future__ import annotations

import os
from typing import Any, List, Optional, Sequence, Union

import numpy as np

from . import _native
from .errors import InvalidDataset, InvalidOption

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".npy")


class Pictures:
    """The pictures of a folder, or of folders that are named for classes, which then are ``labels``.

    x' = (x - ``mean``) * ``scale`` for x from 0 to 255. ``resize``: height and width; without it pictures must have the model's
    size. ``filter``: how they are scaled, ``pil`` (antialiased) or ``tf`` (as ``tf.image.resize``). ``order``: of the channels,
    ``rgb`` or ``bgr``. ``exif``: whether pictures are turned as their files ask for.
    """

    def __init__(
        self, path: Any, *, resize: Optional[Sequence[int]] = None, mean: Union[float, Sequence[float]] = (),
        scale: Optional[float] = None, filter: str = "pil", order: str = "rgb", exif: bool = False,  # noqa: A002
    ) -> None:
        self.path = os.fspath(path)
        try:
            self._size = None if resize is None else [int(own) for own in resize]
            self._mean: List[float] = np.asarray(mean, np.float64).reshape(-1).tolist()
            self._scale = None if scale is None else float(scale)
        except (TypeError, ValueError) as e:
            raise InvalidOption(f"`resize` is [height, width], `mean` and `scale` are numbers: {e}") from e
        if self._size is not None and len(self._size) != 2:
            raise InvalidOption(f"`resize` is {resize!r}; [height, width] is expected")
        self._options = (filter, order, bool(exif))
        #: The names of the folders inside, in order; empty where the pictures are in the folder itself.
        self.classes: List[str] = []
        folders = self._folders()
        counts = [_count(own) for own in folders]
        #: The number of the class of every picture; None without classes.
        self.labels: Optional["np.ndarray[Any, Any]"] = (
            np.repeat(np.arange(len(folders), dtype=np.int64), counts) if self.classes else None
        )
        self._parts = folders

    def _folders(self) -> List[str]:
        names = _listed(self.path)
        inside = [own for own in names if os.path.isdir(os.path.join(self.path, own))]
        if not inside or any(own.lower().endswith(_ENDINGS) for own in names):
            return [self.path]
        self.classes = inside
        return [os.path.join(self.path, own) for own in inside]

    def sized(self, shape: Sequence[int]) -> "Samples":
        """The samples for an input of a shape ``[h, w, c]``."""
        resize = None if self._size is None else (self._size[0], self._size[1])
        kind, order, exif = self._options
        return Samples(
            [_native.Pictures(own, list(shape), resize, kind, order, exif, self._mean, self._scale) for own in self._parts],
            shape,
        )

    def __repr__(self) -> str:
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"<Pictures of {self.path}{classes}>"


def _listed(folder: str) -> List[str]:
    """What is in a folder, in order, less what is hidden."""
    try:
        return sorted(own for own in os.listdir(folder) if not own.startswith("."))
    except (OSError, ValueError) as e:
        raise InvalidDataset(f"{folder}: {getattr(e, 'strerror', None) or e}") from e


def _count(folder: str) -> int:
    return sum(1 for own in _listed(folder) if own.lower().endswith(_ENDINGS))


class Samples:
    """Pictures as an array that is read where it is asked for: by slices, and by arrays of numbers."""

    def __init__(self, parts: List["_native.Pictures"], shape: Sequence[int]) -> None:
        self._parts = parts
        self._starts = np.cumsum([0, *(len(own) for own in parts)])
        self.shape = (int(self._starts[-1]), *shape)
        self.dtype, self.ndim = np.dtype(np.float32), len(shape) + 1

    def __len__(self) -> int:
        return self.shape[0]

    def _one(self, k: int) -> "np.ndarray[Any, Any]":
        part = int(np.searchsorted(self._starts, k, side="right")) - 1
        return self._parts[part].batch(k - int(self._starts[part]), 1)

    def __getitem__(self, key: Any) -> "np.ndarray[Any, Any]":
        numbers = range(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key).reshape(-1)
        made = [self._one(int(k)) for k in numbers]
        return np.concatenate(made) if made else np.zeros((0, *self.shape[1:]), np.float32)

    def __array__(self, dtype: Any = None, copy: Any = None) -> "np.ndarray[Any, Any]":
        return np.asarray(self[:], dtype=dtype)

    @property
    def warnings(self) -> List[str]:
        """What the pictures that were read so far let one doubt."""
        return [text for own in self._parts for text in own.warnings]
