"""Strategies out of names, files and dicts, and the vendor's keyword arguments."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Dict, List, Optional

from . import _native
from .errors import InvalidFile, InvalidOption

#: Names that the vendor's programs use for strategies.
NAMES = [name for names in _native.strategies() for name in names]
_SETTINGS = {row[0]: row for row in _native.settings()}
#: Arguments of the call, which are no part of a strategy.
CALL = {name for name, row in _SETTINGS.items() if row[3]}


def encoded(name: str, value: Any) -> str:
    """A value as JSON; numpy's numbers and arrays are taken for Python's."""
    try:
        return json.dumps(value, default=_plain, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as e:
        raise InvalidOption(f"`{name}` is {value!r:.200}, which is no value of a strategy: {e}") from e


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is no number, word, list or dict")


def read(source: Any, what: str) -> Dict[str, Any]:
    """A strategy as a dict: given as one, or as the path of a JSON file."""
    if isinstance(source, dict):
        return source
    if not isinstance(source, (str, os.PathLike)):
        raise InvalidOption(f"{what} should be filepath or dict, but found {type(source).__name__}")
    path = os.fspath(source)
    try:
        with open(path, encoding="utf-8") as file:
            made = json.load(file)
    except (OSError, ValueError, RecursionError) as e:
        raise InvalidFile(f"Fail to load the json file `{path}`, please check the format: {e}") from e
    if not isinstance(made, dict):
        raise InvalidFile(f"{path}: a JSON object is expected")
    return made


def strategy(name: Any, custom: Any = None, new: Any = None) -> "_native.Strategy":
    """A built-in strategy by name, with overrides and additions."""
    if not isinstance(name, str):
        raise InvalidOption(f"Invalid identifier type: the strategy is {type(name).__name__}; a name is expected")
    made = _native.Strategy(name)
    if new is not None:
        made.update(encoded("new_quantize_strategy", read(new, "new_quantize_strategy")))
    if custom is not None:
        made.update(encoded("custom_quantize_strategy", read(custom, "custom_quantize_strategy")))
    return made


def settings(made: "_native.Strategy", given: Dict[str, Any]) -> List[str]:
    """Sets keyword arguments; returns warnings. Those of the call are passed over."""
    warnings = []
    for name, value in given.items():
        if name in CALL:
            continue
        warning = made.set(str(name), encoded(str(name), value))
        if warning:
            warnings.append(warning)
    return warnings


def checked(name: str, value: Any) -> Any:
    """A setting of the call, if it is of its type."""
    if name == "verbose" and isinstance(value, str):
        return 0
    return value


def log(text: str, level: int = 0) -> None:
    """Says something as the vendor's tool does: 0 for information, 1 for a warning."""
    try:
        least = int(os.environ.get("VAI_LOG_LEVEL", "0"))
    except ValueError:
        least = 0
    if level >= least:
        print(f"[VAI {'WARNING' if level else 'INFO'}] {text}", file=sys.stderr if level else sys.stdout)


def progress(what: str) -> Optional[Any]:
    """A bar of tqdm, where that is installed and somebody looks; else None."""
    if not (sys.stderr.isatty() or "ipykernel" in sys.modules):
        return None
    try:
        from tqdm.auto import tqdm
    except ImportError:
        return None
    bar: List[Any] = []

    def tell(done: int, total: int) -> None:
        if not bar or bar[0].total != total:
            bar[:] = [tqdm(total=total, desc=what, leave=False)]
        bar[0].update(done - bar[0].n)
        if done >= total:
            bar[0].close()

    return tell
