"""What callers pass, checked: whole numbers, paths, shapes of inputs."""

from __future__ import annotations

import os
from typing import Any, List, Optional, Tuple

from .errors import InvalidInputShape, InvalidOption

Shapes = List[Tuple[Optional[str], List[int]]]


def _dims(value: Any) -> Optional[List[int]]:
    if not isinstance(value, (list, tuple)):
        return None
    dims = [1 if own is None and k == 0 else own for k, own in enumerate(value)]
    whole = all(isinstance(own, int) and not isinstance(own, bool) and own > 0 for own in dims)
    return [int(own) for own in dims] if whole else None


def input_shapes(value: Any) -> Shapes:
    """``input_shape`` of the vendor's calls: a list, a list for each input, or a dict by input name."""
    if value is None:
        return []
    if isinstance(value, dict):
        named: List[Tuple[Optional[str], Optional[List[int]]]] = [(str(k), _dims(own)) for k, own in value.items()]
    elif isinstance(value, (list, tuple)) and value and all(isinstance(own, (list, tuple)) for own in value):
        named = [(None, _dims(own)) for own in value]
    else:
        named = [(None, _dims(value))]
    if any(own is None for _, own in named):
        raise InvalidInputShape(f"`input_shape` is {value!r}; a list of whole numbers is expected, with None for the batch alone")
    return [(name, own) for name, own in named if own is not None]


def count(name: str, value: Any) -> Optional[int]:
    """A whole number from 1, or None."""
    if value is None or value == 0 and not isinstance(value, bool):
        return None
    try:
        whole = int(value)
    except (TypeError, ValueError):
        whole = -1
    if isinstance(value, bool) or whole != value or whole < 1:
        raise InvalidOption(f"`{name}` is {value!r}; a whole number from 1 is expected")
    return whole


def number(name: str, value: Any) -> int:
    """A whole number from 1."""
    made = count(name, value)
    if made is None:
        raise InvalidOption(f"`{name}` is {value!r}; a whole number from 1 is expected")
    return made


def path_or_none(path: Any) -> Optional[str]:
    """A path as text, if there is one."""
    return None if path is None else os.fspath(path)
