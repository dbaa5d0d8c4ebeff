"""Results of commands: a report's values by name, as a dict, as a table."""

from __future__ import annotations

import html
import json
from typing import Any, Dict, Iterator, List, Optional


class Report:
    """What a command answers. Values are attributes and items, with the names that the command's JSON has."""

    #: The value that is a table.
    _table: Optional[str] = None

    def __init__(self, values: Any) -> None:
        self._values: Dict[str, Any] = json.loads(values) if isinstance(values, str) else dict(values)

    def to_dict(self) -> Dict[str, Any]:
        """All values, as the command's JSON has them."""
        return json.loads(json.dumps(self._values))  # type: ignore[no-any-return]

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no value `{name}`") from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __contains__(self, name: object) -> bool:
        return name in self._values

    def __len__(self) -> int:
        return len(self._values)

    def __dir__(self) -> List[str]:
        return [*super().__dir__(), *self._values]

    def table(self) -> List[Dict[str, Any]]:
        """The rows of the report's table; empty for a report without one."""
        rows = self._values.get(self._table, []) if self._table else []
        return [row for row in rows if isinstance(row, dict)]

    def to_pandas(self) -> Any:
        """The table as a ``pandas.DataFrame``; needs pandas."""
        import pandas

        return pandas.DataFrame(self.table())

    def __repr__(self) -> str:
        short = {k: v for k, v in self._values.items() if isinstance(v, (str, int, float, bool)) or v is None}
        told = ", ".join(f"{k}={v!r}" for k, v in short.items())
        rows = f", {len(self.table())} {self._table}" if self._table and self.table() else ""
        return f"{type(self).__name__}({told}{rows})"

    def _repr_html_(self) -> str:
        return table_html(self.table()) if self.table() else f"<pre>{html.escape(repr(self))}</pre>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.6g}"
    if isinstance(value, (list, dict)):
        value = json.dumps(value)
        value = value if len(value) <= 80 else value[:77] + "..."
    return html.escape("" if value is None else str(value))


def table_html(rows: List[Dict[str, Any]]) -> str:
    """Rows as an HTML table, with a column for each key."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    head = "".join(f"<th>{html.escape(key)}</th>" for key in keys)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(key))}</td>" for key in keys) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


class Quantization(Report):
    """What quantizing did: ``quantize_info``, ``warnings``, ``dead_channels``, ``finetuned``."""

    _table = "quantize_info"


class Inspection(Report):
    """Where each layer runs: ``layers``, ``cost``, ``cuts``, ``rewrites``."""

    _table = "layers"


class Estimate(Report):
    """How fast a network will be: ``fps``, ``latency``, ``layers``."""

    _table = "layers"


class Compilation(Report):
    """A compiled network: ``target``, ``memory``, ``cycles``, ``layers``."""

    _table = "layers"


class Proof(Report):
    """Whether quantizer, simulator and kernels compute the same bits: ``holds``, ``verdict``, ``checks``."""

    _table = "checks"

    def __bool__(self) -> bool:
        return bool(self._values["holds"])


class Analysis(Report):
    """Where quantization hurts: ``layers``, ``outputs``, ``remedies``, ``proposed``."""

    _table = "layers"
    #: The strategy that is proposed, as :func:`shiftwise.quantize` takes it; None where nothing is worth it.
    strategy: Optional[Dict[str, Any]] = None


class Difference(Report):
    """What differs between two files: ``equal``, ``rows``."""

    _table = "rows"


class Comparison(Report):
    """What differs between two dumps."""

    _table = "differences"
    #: Whether both are the same.
    equal: bool = False

    def __bool__(self) -> bool:
        return self.equal


class Information(Report):
    """What a file is."""


class Targets(Report):
    """All targets and boards."""

    _table = "targets"


class Dump(Report):
    """What a dump holds: ``output_dir``, ``weights``, ``activations``, ``values``."""


class Simulation(Report):
    """Cycles of a simulated frame; ``outputs`` are arrays ``[n, ...]`` in the model's order."""

    _table = "layers"
    outputs: List[Any]


class Page(Report):
    """A page about a network; ``html`` is its text."""

    html: str = ""

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{html.escape(self.html)}" width="100%" height="600"></iframe>'
