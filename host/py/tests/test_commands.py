"""The functions that are commands, on the repository's own network: no framework is needed."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import shiftwise


def quantized(lenet: str, digits: Any) -> Any:
    return shiftwise.quantize(lenet, digits[0])


def test_a_float_network_becomes_a_program_whose_bits_are_proven(lenet: str, digits: Any, tmp_path: pathlib.Path) -> None:
    model = quantized(lenet, digits)
    assert model.kind == "quantized" and model.report is not None
    assert model.evaluate(digits[1], digits[2]) > 0.9
    program = model.compile(target="B512")
    assert program.target.endswith("B512") and program.report.layers
    proof = shiftwise.verify(model, digits[1], target="B512", samples=2)
    assert proof and proof.holds and proof.samples == 2
    simulated = program.simulate(digits[1], samples=2)
    np.testing.assert_array_equal(simulated.outputs[0], model.predict(digits[1][:2], numerics="dpu"))
    program.save("digits.swm")
    again = shiftwise.load_deployable("digits.swm")
    assert again.to_bytes() == program.to_bytes()


def test_a_saved_model_is_read_as_it_was(lenet: str, digits: Any) -> None:
    model = quantized(lenet, digits)
    model.save("quantized.h5")
    again = shiftwise.load_model("quantized.h5")
    np.testing.assert_array_equal(again.predict(digits[1][:8]), model.predict(digits[1][:8]))
    assert again.to_h5() == model.to_h5() == pathlib.Path("quantized.h5").read_bytes()
    for name in ("quantized.onnx", "quantized.pb", "quantized/saved_model.pb", "quantized.c"):
        shiftwise.export(model, "quantized") if "/" in name else shiftwise.export(model, name)
        assert pathlib.Path(name).stat().st_size > 1000


def test_reports_are_dicts_tables_and_html(lenet: str, digits: Any) -> None:
    inspection = shiftwise.inspect(lenet, target="B4096", plot="model.svg", dump_results="results.txt")
    assert inspection.to_dict()["layers"] == inspection.layers
    assert "<table>" in inspection._repr_html_() and pathlib.Path("model.svg").read_text().startswith("<svg")
    estimate = shiftwise.estimate(lenet, target="B4096")
    json.dumps(estimate.to_dict())
    analysis = shiftwise.analyze(lenet, digits[0], samples=8, quick=True)
    assert analysis.table() and analysis.outputs
    page = shiftwise.report(lenet, target="B4096", output="page.html")
    assert page.html == pathlib.Path("page.html").read_text()
    assert len(shiftwise.targets()) and shiftwise.targets("B4096")
    assert shiftwise.info(lenet).to_dict()


def test_dumps_and_files_are_compared(lenet: str, digits: Any) -> None:
    model = quantized(lenet, digits)
    for folder in ("a", "b"):
        assert shiftwise.dump(model, digits[1], output_dir=folder).activations > 0
    assert shiftwise.compare("a", "b").equal
    model.save("a.h5")
    shiftwise.quantize(lenet, digits[0], bias_bit=16).save("b.h5")
    assert shiftwise.diff("a.h5", "a.h5").equal and not shiftwise.diff("a.h5", "b.h5").equal


def test_every_kind_of_data_gives_the_same_network(lenet: str, digits: Any) -> None:
    x = np.asarray(digits[0][:40], np.float32)
    batches = [x[k : k + 16] for k in range(0, len(x), 16)]

    class Sequence:
        def __len__(self) -> int:
            return len(batches)

        def __getitem__(self, k: int) -> Any:
            return batches[k], np.zeros(len(batches[k]))

    np.save("x.npy", x)
    np.savez("x.npz", other=x[:1], x=x)
    want = shiftwise.quantize(lenet, x, batch_size=16).to_h5()
    kinds = {
        "float64": x.astype(np.float64), "fortran": np.asfortranarray(x), "dict": {"input_1": x}, "list": [x],
        "labelled": (x, np.zeros(40)), "file": "x.npy", "archive": "x.npz:x", "strided": np.repeat(x, 2, 0)[::2],
    }
    for name, data in kinds.items():
        assert shiftwise.quantize(lenet, data, batch_size=16).to_h5() == want, name
    streams = {
        "generator": (own for own in batches), "labelled": iter([(own, np.zeros(len(own))) for own in batches]),
        "sequence": Sequence(), "dicts": iter([{"x": own} for own in batches]), "samples": None,
    }
    for name, data in streams.items():
        if data is not None:
            assert shiftwise.quantize(lenet, data).to_h5() == want, name
    endless = (batches[0] for _ in iter(int, 1))
    shiftwise.quantize(lenet, endless, steps=3)


def test_a_network_learns_without_keras(lenet: str, digits: Any) -> None:
    from shiftwise import vitis_quantize

    x, y = digits[1][:128].astype(np.float32), digits[2][:128]
    model = vitis_quantize.VitisQuantizer(lenet, quantize_strategy="pof2s_tqt").get_qat_model(
        init_quant=True, calib_dataset=digits[0]
    )
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    seen = []
    history = model.fit(x, y, epochs=2, batch_size=32, verbose=0, validation_data=(x, y), callbacks=[lambda e, logs: seen.append(e)])
    assert seen == [0, 1] and history.history["loss"][1] < history.history["loss"][0] * 1.5
    assert set(history.history) == {"loss", "accuracy", "val_loss", "val_accuracy"}
    model.save("qat.h5")
    deployed = vitis_quantize.VitisQuantizer.get_deploy_model(model)
    assert deployed.kind == "quantized" and deployed.evaluate(x, y) > 0.9
    assert shiftwise.load_model("qat.h5", training=True).kind == "training"


def test_layers_have_weights_that_can_be_set(lenet: str, digits: Any) -> None:
    model = shiftwise.load_model(lenet)
    weights = model.get_weights()
    assert model.count_params() == sum(w.size for w in weights)
    layer = next(own for own in model.layers if own.get_weights())
    layer.set_weights([w * 0 for w in layer.get_weights()])
    assert not np.any(model.get_layer(layer.name).get_weights()[0])
    model.set_weights(weights)
    np.testing.assert_array_equal(model.get_weights()[0], weights[0])
    assert layer.name in repr(model) and "<table>" in model._repr_html_()


def test_errors_have_a_code_and_a_hint(lenet: str, digits: Any) -> None:
    cases = {
        "Shiftwise_Io": lambda: shiftwise.load_model("nowhere.h5"),
        "Quantizer_TF2_Invalid_Target": lambda: shiftwise.targets("B1"),
        "Quantizer_TF2_Invalid_Calib_Dataset": lambda: shiftwise.quantize(lenet),
        "Quantizer_TF2_Invalid_Input_Shape": lambda: shiftwise.load_model(lenet, input_shape=[None, "a"]),
        "Quantizer_TF2_Unsupported_Model": lambda: shiftwise.quantize(object(), digits[0]),
        "Shiftwise_Invalid_Option": lambda: shiftwise.quantize(lenet, digits[0], foo=1),
        "Shiftwise_Wrong_Kind_Of_File": lambda: shiftwise.compile(lenet, target="B512"),
    }
    for code, call in cases.items():
        with pytest.raises(shiftwise.Error) as caught:
            call()
        assert caught.value.code == code and caught.value.hint and isinstance(caught.value, ValueError)


def test_an_exception_of_the_data_comes_through(lenet: str, digits: Any) -> None:
    def broken() -> Any:
        yield digits[0][:4]
        raise ZeroDivisionError("mine")

    class Late:
        shape = (40, 8, 8, 1)

        def __len__(self) -> int:
            return 40

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        shiftwise.quantize(lenet, broken())
    with pytest.raises(shiftwise.Error, match="mine"):
        shiftwise.quantize(lenet, Late())


def test_threads_work_side_by_side(lenet: str, digits: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    want = quantized(lenet, digits).to_h5()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: shiftwise.quantize(lenet, digits[0]).to_h5(), range(8)))
    assert all(own == want for own in made)


def test_an_interrupt_stops_within_a_batch(lenet: str) -> None:
    # Nobody knows when a call begins on a busy machine: calls follow each other, and the one that is interrupted must not end.
    program = (
        "import numpy as np, os, signal, threading, shiftwise\n"
        # A process that a script has put into the background inherits that it ignores interrupts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"m = shiftwise.load_model({lenet!r})\n"
        "x = np.zeros((400000, *m.input_shape[1:]), np.float32)\n"
        "ended = sent = 0\n"
        "def interrupt():\n    global sent\n    sent = ended\n    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Timer(0.5, interrupt).start()\n"
        "try:\n    while True:\n        m.predict(x)\n        ended += 1\n"
        "except KeyboardInterrupt:\n    print('stopped' if ended == sent else f'{ended - sent} calls later')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60)
    assert done.stdout.strip() == "stopped"


def test_importing_takes_no_framework_along() -> None:
    program = (
        "import sys, shiftwise, shiftwise.vitis_quantize\n"
        "print([m for m in ('tensorflow', 'keras', 'tf_keras', 'torch', 'h5py', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout.strip() == "[]"
