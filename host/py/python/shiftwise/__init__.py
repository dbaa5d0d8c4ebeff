"""From a float network to numbers that a DPU computes bit for bit.

``quantize``, ``compile``, ``simulate``, ``verify`` and the other functions are the commands of the program ``shiftwise``.
``shiftwise.vitis_quantize`` and ``shiftwise.vitis_inspect`` have the vendor's classes; ``import shiftwise.compat`` makes the
vendor's own import paths resolve to them.
"""

from __future__ import annotations

from . import errors
from ._native import __version__
from .autograd import jax_loss, tf_loss, torch_loss
from .commands import (
    analyze,
    compare,
    compile,
    diff,
    dump,
    estimate,
    export,
    info,
    inspect,
    load_model,
    quantize,
    report,
    settings,
    simulate,
    targets,
    verify,
)
from .deployable import Deployable, load_deployable
from .errors import Error
from .model import Model
from .pictures import Pictures
from .program import binary, command

__all__ = [
    "Deployable", "Error", "Model", "Pictures", "__version__", "analyze", "binary", "command", "compare", "compile", "diff",
    "dump", "errors", "estimate", "export", "info", "inspect", "jax_loss", "load_deployable", "load_model", "quantize", "report",
    "settings", "simulate", "targets", "tf_loss", "torch_loss", "verify",
]
