"""Every Python snippet of the vendor's document runs, with a small network and data in place of its placeholders."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any, Dict, List

import numpy as np
import pytest
from conftest import HAS_KERAS, NO_KERAS, NO_SHARED, SHARED

DOCUMENT = SHARED / "seed" / "vai_q_tensorflow2.md"

pytestmark = [
    pytest.mark.skipif(not HAS_KERAS, reason=NO_KERAS),
    pytest.mark.skipif(not DOCUMENT.exists(), reason=NO_SHARED),
]

#: Mistakes of the document's own text, mended so that Python reads it.
MENDED = [
    ("‘", "'"), ("’", "'"), ("“", '"'), ("”", '"'),
    # A comma that is missing before an argument.
    ("convert_datatype='float16'\n", "convert_datatype='float16',\n"),
    ("filepath='./quantize_train/'\n", "filepath='./quantize_train/',\n"),
    # A list of dicts without braces.
    ('"quantizer_type": "LastValueQuantPosQuantizer","quantizer_params"', '"quantizer_type": "LastValueQuantPosQuantizer", "quantizer_params"'),
    ("super(MyLayer, self).__init__(kwargs)", "super(MyCustomLayer, self).__init__(**kwargs)"),
    ("super(MyLayer, self).get_config()", "super(MyCustomLayer, self).get_config()"),
    ("{'MyLayer': MyLayer}", "{'MyCustomLayer': MyCustomLayer}"),
    ("\t", "    "),
]


def snippets() -> List[str]:
    if not DOCUMENT.exists():
        return []
    return re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)


def mended(text: str) -> str:
    for wrong, right in MENDED:
        text = text.replace(wrong, right)
    text = re.sub(r'^(\s*)("quantizer_type": .*?\})(,?)\s*$', r"\1{\2}\3", text, flags=re.MULTILINE) if "my_quantize_strategy = {" in text else text
    return text


def is_configuration(text: str) -> bool:
    return text.lstrip().startswith("{")


def is_signature(text: str) -> bool:
    """A call as the reference of the document writes it: a name and its defaults alone."""
    return bool(re.match(r"^(vitis_\w+\.)?Vitis\w+(\.\w+)?\(", text.strip())) and "=" not in text.strip().split("(")[0]


class World:
    """Names that snippets use and do not define."""

    def __init__(self) -> None:
        import tensorflow as tf

        self.tf, self.keras = tf, tf.keras
        self.rng = np.random.default_rng(0)

    def network(self, custom: Any = None) -> Any:
        layers = self.keras.layers
        inputs = layers.Input((224, 224, 3) if custom is None else (8, 8, 3))
        x = layers.Conv2D(4, 3, strides=8, name="conv1")(inputs)
        x = layers.Conv2D(4, 3, strides=4, activation="relu", name="conv2")(x) if custom is None else x
        x = layers.Concatenate(name="concatenate")([x, x])
        x = layers.GlobalAveragePooling2D()(x)
        if custom is not None:
            x = custom(4)(x)
        return self.keras.Model(inputs, layers.Dense(10, activation="softmax")(x))

    def data(self, size: int = 224, labelled: bool = True, batch: int = 4) -> Any:
        x = self.rng.normal(size=(8, size, size, 3)).astype(np.float32)
        y = np.arange(8) % 10
        made = self.tf.data.Dataset.from_tensor_slices((x, y) if labelled else x)
        return made.batch(batch)

    def names(self, custom: Any = None) -> Dict[str, Any]:
        from shiftwise import vitis_quantize

        size = 224 if custom is None else 8
        model = self.network(custom)
        # The quick start trains a model as it comes from the quantizer.
        model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
        model.save("float_model.h5")
        quantizer = vitis_quantize.VitisQuantizer(model)
        quantized = quantizer.quantize_model(self.data(size), include_cle=False)
        quantized.save("quantized_model.h5")
        qat = quantizer.get_qat_model()
        loss = self.keras.losses.SparseCategoricalCrossentropy()
        qat.compile("sgd", loss, metrics=["sparse_categorical_accuracy"])
        return {
            "tf": self.tf, "keras": self.keras, "model": model, "float_model": model, "quantized_model": quantized,
            "quantizer": quantizer, "vitis_quantizer": quantizer, "qat_model": qat, "vitis_quantize": vitis_quantize,
            "VitisQuantizer": vitis_quantize.VitisQuantizer, "calib_dataset": self.data(size), "train_dataset": self.data(size),
            "eval_dataset": self.data(size), "dump_dataset": self.data(size, labelled=False, batch=1), "kwargs": {},
            "your_loss": loss, "your_metrics": ["accuracy"], "RMSprop": self.keras.optimizers.RMSprop, "lr_schedule": 1e-3,
            "__name__": "__main__",
        }


@pytest.fixture(scope="module")
def world() -> World:
    import shiftwise.compat  # noqa: F401

    return World()


@pytest.mark.parametrize("number", range(len(snippets())))
def test_a_snippet_runs(number: int, world: World, capsys: pytest.CaptureFixture[str]) -> None:
    text = mended(snippets()[number])
    if is_configuration(text):
        entry = json.loads(text)
        from shiftwise import vitis_quantize

        quantizer = vitis_quantize.VitisQuantizer(world.network())
        entry["activation_quantizers"][0]["quantizer_type"] = "Pof2SQuantizer"
        for quantized in ("weight", "bias", "activation"):
            for own in entry[f"{quantized}_quantizers"]:
                own["quantizer_params"].pop("method_percentile", None)
                own["quantizer_params"]["method"] = min(1, own["quantizer_params"]["method"])
        quantizer.set_quantize_strategy({"quantize_registry_config": {"layer_quantize_config": [entry]}})
        return
    if is_signature(text) and not text.lstrip().startswith(("quantizer", "inspector")):
        _signature(text, world)
        return
    custom = None
    own: Dict[str, Any] = {}
    if "MyCustomLayer" in text:
        own = {"tf": world.tf, "keras": world.keras, "__name__": "__main__"}
        exec(mended(next(s for s in snippets() if "class MyCustomLayer" in s)).split("# Here is")[0], own)
        custom = own["MyCustomLayer"]
    names = {**world.names(custom), **({"MyCustomLayer": custom} if custom else {})}
    if re.search(r"^model\.fit\(", text, re.MULTILINE) and "model.compile(" not in text:
        names["model"] = names["qat_model"]
    if "ModelCheckpoint" in text and hasattr(world.keras, "ops"):
        text = text.replace("./quantize_train/", "./quantize_train.keras")
    if hasattr(world.keras, "ops"):
        # Keras 3 takes metrics of models of its own in a list only.
        text = re.sub(r"(\nmodel\.compile\(.*?metrics=)(\S+\(\))\)", r"\1[\2])", text, flags=re.DOTALL)
    if "layer_config=" in text:
        # The document leaves what every quantization needs to `kwargs`.
        names["kwargs"] = {"calib_dataset": names["calib_dataset"]}
    if "get_deploy_model(model)" in text:
        names["model"] = names["qat_model"]
    if custom is not None:
        import sys
        import types

        stand_in = types.ModuleType("__main__")
        stand_in.MyCustomLayer = custom  # type: ignore[attr-defined]
        kept, sys.modules["__main__"] = sys.modules["__main__"], stand_in
        try:
            exec(compile(text, f"snippet {number}", "exec"), names)
        finally:
            sys.modules["__main__"] = kept
        return
    exec(compile(text, f"snippet {number}", "exec"), names)


def _signature(text: str, world: World) -> None:
    """The arguments that the document's reference names are arguments of ours."""
    import inspect

    from shiftwise import vitis_inspect, vitis_quantize

    path = text.strip().split("(")[0].split(".")
    own: Any = {"vitis_quantize": vitis_quantize, "vitis_inspect": vitis_inspect, "VitisInspector": vitis_inspect.VitisInspector}[path[0]]
    for name in path[1:]:
        own = getattr(own, name)
    known = inspect.signature(own).parameters
    for name in re.findall(r"^\s*(\w+)=|[(,]\s*(\w+)=", text, re.MULTILINE):
        word = name[0] or name[1]
        assert word in known or any(p.kind == p.VAR_KEYWORD for p in known.values()), word
    assert pathlib.Path.cwd().exists()
