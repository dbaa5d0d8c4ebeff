"""Programs as the vendor's examples are written, run as they are after `import shiftwise.compat`.

With TensorFlow's own Keras (the third generation), and with `TF_USE_LEGACY_KERAS=1` the second one.
"""

from __future__ import annotations

import pathlib
import runpy
import sys
from typing import Any

import numpy as np
import pytest
from conftest import DATA, HAS_KERAS, NO_KERAS

PROGRAMS = sorted(own for own in (pathlib.Path(__file__).parent / "programs").glob("*.py") if own.stem != "common")

pytestmark = pytest.mark.skipif(not HAS_KERAS, reason=NO_KERAS)


def mnist() -> Any:
    """The repository's digits, as large as MNIST's."""
    archive = np.load(DATA / "digits.npz")

    def large(x: Any) -> Any:
        x = np.clip(x[..., 0] * 255, 0, 255).repeat(3, 1).repeat(3, 2)
        return np.pad(x, ((0, 0), (2, 2), (2, 2))).astype(np.uint8)

    x, y = archive["x_eval"], archive["y_eval"]
    return (large(x[:300]), y[:300]), (large(x[300:]), y[300:])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda own: own.stem)
def test_a_program_of_the_vendors_kind_runs(program: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shiftwise.compat  # noqa: F401
    import tensorflow as tf

    if program.stem in ("export_onnx", "mnist_cnn_ptq_mix_precision"):
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    monkeypatch.setattr(tf.keras.datasets.mnist, "load_data", mnist)
    monkeypatch.syspath_prepend(str(program.parent))
    sys.modules.pop("common", None)
    tf.keras.backend.clear_session()
    runpy.run_path(str(program), run_name="__main__")
