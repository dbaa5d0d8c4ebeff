"""What the tests share: the repository's own networks and data, reference cases where they are, Keras where it is installed."""

from __future__ import annotations

import importlib.util
import os
import pathlib
from typing import Any, Iterator

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
DATA = ROOT / "tests" / "data"
SHARED = pathlib.Path(os.environ.get("SHIFTWISE_SHARED", ROOT.parent / "shared"))
GOLDEN = SHARED / "golden"
HAS_KERAS = os.environ.get("SHIFTWISE_KERAS") != "0" and importlib.util.find_spec("tensorflow") is not None
NO_KERAS = "TensorFlow is not installed, or its tests are not asked for (cargo xtask python --keras)"
#: Whether tests take the time to be sure: ten thousand calls in place of hundreds.
THOROUGH = os.environ.get("SHIFTWISE_THOROUGH") == "1"
NO_SHARED = "the reference data is not here: set SHIFTWISE_SHARED"

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")


@pytest.fixture(scope="session")
def digits() -> Any:
    """Calibration samples, evaluation samples and their labels, as float32 [n, 8, 8, 1]."""
    archive = np.load(DATA / "digits.npz")
    return archive["x_cal"], archive["x_eval"], archive["y_eval"]


@pytest.fixture(scope="session")
def lenet() -> str:
    """A trained float network for them."""
    return str(DATA / "digits_lenet.h5")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every test has a folder of its own, where its files go."""
    monkeypatch.chdir(tmp_path)
    yield


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says what was not tested, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.write_line(f"{len(skipped)} tests were skipped; their reasons are above")
