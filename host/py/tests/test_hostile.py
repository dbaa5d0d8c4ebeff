"""Wrong arguments of every kind end in exceptions, and memory stays where it is."""

from __future__ import annotations

import inspect
import random
import shutil
from typing import Any, Callable, List

import numpy as np
import shiftwise
from conftest import THOROUGH
from shiftwise import _native, vitis_inspect, vitis_quantize

CALLS = 10_000 if THOROUGH else 400


def _values(lenet: str) -> List[Any]:
    cyclic: List[Any] = []
    cyclic.append(cyclic)
    return [
        None, True, False, 0, 1, -1, 2**70, 1.5, float("nan"), float("inf"), 1j, "", "pof2s", "x" * 10_000, "\0", "\ud800",
        b"", b"\x89HDF\r\n\x1a\n", [], (), {}, set(), [1, 2], [[1]], [None], {"a": 1}, {1: 2}, object(), object, len,
        lambda *a: a, lambda: 1 / 0, iter([]), iter([1]), (x for x in [np.zeros(3)]), cyclic, range(3), Ellipsis,
        np.zeros(0), np.zeros((0, 8, 8, 1), np.float32), np.zeros((2, 8, 8, 1), np.float32), np.zeros((2, 3)),
        np.full((2, 8, 8, 1), np.nan, np.float32), np.array("text"), np.array([object()]), np.float32(1), np.int64(-3),
        np.zeros((1, 1 << 20), np.float32)[:, ::4], np.ones((2, 8, 8, 1), np.complex64), "nowhere.h5", "/", lenet,
        shiftwise.load_model(lenet), _native.Strategy("pof2s"), _native.Strategy, Exception("mine"), "B4096",
    ]


def _callables(lenet: str) -> List[Callable[..., Any]]:
    model = shiftwise.load_model(lenet)
    quantizer = vitis_quantize.VitisQuantizer(lenet)
    inspector = vitis_inspect.VitisInspector(target="B4096")
    own: List[Callable[..., Any]] = [
        getattr(shiftwise, name) for name in shiftwise.__all__ if callable(getattr(shiftwise, name)) and name not in (
            "command", "Model", "Deployable", "errors", "binary")
    ]
    own += [
        getattr(_native, name) for name in dir(_native) if callable(getattr(_native, name)) and not name.startswith("_") and name != "main"
    ]
    own += [vitis_quantize.VitisQuantizer, vitis_inspect.VitisInspector, quantizer.quantize_model, quantizer.get_qat_model]
    own += [quantizer.get_deploy_model, quantizer.dump_model, quantizer.set_quantize_strategy, inspector.inspect_model]
    own += [quantizer.dump_quantize_strategy, _native.Model.open, _native.Model.from_bytes, _native.Strategy("fs").set]
    for name in ("predict", "evaluate", "fit", "compile", "get_layer", "set_weights", "train_on_batch", "to_onnx"):
        own.append(getattr(model, name))
    return own


def _arguments(call: Callable[..., Any], values: List[Any], draw: random.Random) -> Any:
    try:
        parameters = [p for p in inspect.signature(call).parameters.values() if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    except (TypeError, ValueError):
        return [draw.choice(values) for _ in range(draw.randrange(4))], {}
    given = {p.name: draw.choice(values) for p in parameters if p.default is p.empty or draw.random() < 0.3}
    if draw.random() < 0.1:
        given["surprise"] = draw.choice(values)
    return [], given


def test_wrong_arguments_of_every_kind_are_exceptions(lenet: str) -> None:
    # A call may write wherever it is told to.
    lenet = shutil.copy(lenet, "copy.h5")
    draw, values, calls = random.Random(1), _values(lenet), _callables(lenet)
    raised = 0
    for _ in range(CALLS):
        call = draw.choice(calls)
        positional, named = _arguments(call, values, draw)
        try:
            call(*positional, **named)
        except Exception as e:  # noqa: BLE001
            raised += 1
            # Panics of Rust are no Exception; what a user did wrong never looks like a fault of ours.
            assert not isinstance(e, (SystemError, AssertionError)), (call, named)
    assert raised > CALLS // 2


def test_memory_is_flat_over_many_quantizations(lenet: str, digits: Any) -> None:
    def resident() -> int:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * 4096

    x = digits[0][:8]
    for _ in range(100 if THOROUGH else 30):
        shiftwise.quantize(lenet, x, include_cle=False)
    before = resident()
    for _ in range(900 if THOROUGH else 70):
        shiftwise.quantize(lenet, x, include_cle=False)
    assert resident() - before < 24 << 20
