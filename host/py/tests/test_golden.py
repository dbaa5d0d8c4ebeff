"""A reference case through Python gives the command line's bytes."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any, List

import numpy as np
import pytest
import shiftwise
from conftest import GOLDEN, NO_SHARED
from shiftwise import vitis_quantize

#: One of every kind of strategy, and what is special about arguments: batches, steps, widths, layer lists.
CASES = [
    "pof2s_conv_bn_relu_v0", "pof2s_multi_input_v0", "pof2s_resnetish_v0", "fsx_default", "fs_method0", "gpu_default",
    "bfp_default", "c_bs1", "c_steps", "o_bias16_optB", "p_ignore", "o_to_fs_optA", "d_convert_float16", "m_layer_int16",
    "tqt_ptq_keep", "s_input_shape",
]


def command_line(folder: pathlib.Path, config: Any, calib: List[pathlib.Path]) -> bytes:
    """What the program writes."""
    words = [*shiftwise.binary(), "quantize", str(folder / "model.h5"), "--strategy", config["strategy"], "--output-dir", "cli"]
    for path in calib:
        words += ["--calib", _named(config, path, calib)]
    if config.get("calib_batch_size"):
        words += ["--calib-batch-size", str(config["calib_batch_size"])]
    for key, value in config["quantize_kwargs"].items():
        words += ["--set", f"{key}={json.dumps(value)}"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr
    return pathlib.Path("cli/quantized.h5").read_bytes()


def _named(config: Any, path: pathlib.Path, calib: List[pathlib.Path]) -> str:
    if len(calib) == 1:
        return str(path)
    names = [own["name"] for own in config["float_graph"] if own["cls"] == "InputLayer"]
    return f"{names[calib.index(path)]}={path}"


@pytest.mark.skipif(not GOLDEN.is_dir(), reason=NO_SHARED)
@pytest.mark.parametrize("case", CASES)
def test_python_gives_the_bytes_of_the_command_line(case: str) -> None:
    folder = GOLDEN / case
    config = json.loads((folder / "config.json").read_text())
    calib = sorted(folder.glob("calib*.npy"))
    want = command_line(folder, config, calib)
    data: Any = [np.load(path) for path in calib]
    kwargs = {key: value for key, value in config["quantize_kwargs"].items()}
    quantizer = vitis_quantize.VitisQuantizer(str(folder / "model.h5"), quantize_strategy=config["strategy"])
    model = quantizer.quantize_model(
        data[0] if len(data) == 1 else data or None, calib_batch_size=config.get("calib_batch_size"), **kwargs
    )
    model.save("mine.h5")
    assert pathlib.Path("mine.h5").read_bytes() == want
