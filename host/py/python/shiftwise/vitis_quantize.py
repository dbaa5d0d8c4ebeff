"""The vendor's quantizer: the same class, methods, arguments and errors."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Dict, Iterator, List, Optional

from . import _models, _native, _strategies
from ._arguments import count
from ._files import make_folder, write_file
from ._keras import hook
from ._strategies import log
from .commands import dump
from .errors import CannotCompile, InvalidDataset, InvalidOption

hook.install()

_FORMATS = ("h5", "tf", "pb", "onnx")


@contextlib.contextmanager
def quantize_scope(*_arguments: Any) -> Iterator[Dict[str, Any]]:
    """A context in which quantized models can be loaded; they can be loaded outside of it, too."""
    yield {}


#: The vendor's name of the classes that a scope would add.
custom_objects: Dict[str, Any] = {}


class VitisQuantizer:
    """Quantizes a model.

    ``model``: a Keras model, the path of a file of any format that the command line reads, or a ``shiftwise.Model``.
    ``quantize_strategy``: pof2s, pof2s_tqt, fs, fsx, gpu or bfp. ``custom_quantize_strategy``: overrides and additions, a
    dict or the path of a JSON file. ``custom_objects``: classes of layers that are not Keras' own, functions of numpy arrays
    ``f(inputs, weights, config)``, or formulas. ``target``: a DPU, by name, fingerprint or ``arch.json``.
    """

    def __init__(
        self,
        model: Any,
        model_format: Optional[str] = None,
        quantize_strategy: str = "pof2s",
        custom_quantize_strategy: Any = None,
        custom_objects: Optional[Dict[str, Any]] = None,
        target: Optional[str] = None,
        target_type: Optional[str] = None,
    ) -> None:
        if isinstance(model_format, str) and model_format in _strategies.NAMES:
            # Older versions took the strategy in this place.
            quantize_strategy, model_format = model_format, None
        if model_format not in (None, "func", "subclass", "pb", "h5", "tf", "onnx"):
            raise InvalidOption(f"`model_format` is {model_format!r}; func, subclass or pb is expected")
        self._model = model
        self._name = quantize_strategy
        self._custom_objects = dict(custom_objects or {})
        self._strategy = _strategies.strategy(quantize_strategy, custom_quantize_strategy)
        self._target = None if target is None else str(target)
        if self._target is not None:
            _native.targets(self._target)
        # A wrong model is told here, not after a call with data; one without a size waits for the data.
        if not isinstance(model, (str, os.PathLike)) and _models.keras_of(model) is None:
            _models.native(model)

    # Strategies

    def dump_quantize_strategy(self, dump_file: Any = "quantize_strategy.json", verbose: int = 0) -> str:
        """Writes the strategy as JSON; ``verbose`` 2 has all of it. Returns the text."""
        if isinstance(verbose, bool) or not isinstance(verbose, int):
            raise InvalidOption(f"`verbose` is {verbose!r}; a whole number is expected")
        text = self._strategy.dump(min(max(verbose, 0), 2))
        if dump_file:
            write_file(os.fspath(dump_file), text.encode())
        return text

    def set_quantize_strategy(self, new_quantize_strategy: Any) -> None:
        """Overrides the strategy by a dict or a JSON file."""
        made = _strategies.read(new_quantize_strategy, "new_quantize_strategy")
        self._strategy.update(_strategies.encoded("new_quantize_strategy", made))

    def _set(self, given: Dict[str, Any]) -> None:
        # What fails leaves the strategy as it was.
        made = self._strategy.copy()
        for warning in _strategies.settings(made, given):
            log(warning, 1)
        self._strategy = made

    # Quantizing

    def quantize_model(
        self,
        calib_dataset: Any = None,
        calib_batch_size: Optional[int] = None,
        calib_steps: Optional[int] = None,
        verbose: int = 0,
        add_shape_info: bool = False,
        **kwargs: Any,
    ) -> Any:
        """Post-training quantization.

        ``calib_dataset``: an array, a list or dict of arrays, a ``tf.data.Dataset``, a Sequence, a DataLoader or any iterable
        of batches, with or without labels. ``calib_batch_size``: samples of a batch of arrays, 32 if it is not given.
        ``calib_steps``: batches at most. Further keyword arguments are settings of the strategy and stay set; see
        ``shiftwise.settings()``.

        Returns a Keras model where the model is one, else a ``shiftwise.Model``.
        """
        shape, seed = kwargs.pop("input_shape", None), kwargs.pop("seed", 0)
        kwargs.pop("dataset", None)
        self._set(kwargs)
        size, steps = count("calib_batch_size", calib_batch_size), count("calib_steps", calib_steps)
        needs = self._strategy.needs_data()
        if needs and calib_dataset is None:
            raise InvalidDataset("Need to assign `calib_dataset` for when calling quantize_model().")
        model = _models.native(self._model, shape, self._custom_objects, calib_dataset if needs else None)
        data = _models.samples(calib_dataset, model, steps) if needs else None
        size = (data.batch_size if data is not None else None) or size or 32
        log("Quantize Calibration..." if needs else "Quantizing without calibration...")
        made, report = _native.quantize(
            model, self._strategy, data, size, steps, int(seed), _strategies.progress("calibrating")
        )
        result = _models.back(made, self._model, report, self._custom_objects)
        self._save(made)
        log("Quantization Finished.")
        return result

    def get_qat_model(
        self,
        init_quant: bool = False,
        calib_dataset: Any = None,
        calib_batch_size: Optional[int] = None,
        calib_steps: Optional[int] = None,
        train_with_bn: bool = False,
        freeze_bn_delay: int = -1,
        **kwargs: Any,
    ) -> Any:
        """A model whose quantizers train with it.

        ``init_quant``: whether quantizers begin where calibration with ``calib_dataset`` leaves them. ``train_with_bn``:
        whether normalizations stay until :meth:`get_deploy_model`; ``freeze_bn_delay``: steps after which they are frozen.

        Returns a Keras model where the model is one, else a ``shiftwise.Model``.
        """
        shape = kwargs.pop("input_shape", None)
        self._set(kwargs)
        made = self._strategy.copy()
        if train_with_bn:
            made.set("train_with_bn", "true")
        if freeze_bn_delay is not None and freeze_bn_delay != -1:
            made.set("freeze_bn_delay", _strategies.encoded("freeze_bn_delay", freeze_bn_delay))
        size, steps = count("calib_batch_size", calib_batch_size), count("calib_steps", calib_steps)
        if init_quant and calib_dataset is None and made.needs_data():
            raise InvalidDataset("Need to assign `calib_dataset` when `init_quant` is True.")
        data_needed = bool(init_quant) and made.needs_data()
        model = _models.native(self._model, shape, self._custom_objects, calib_dataset)
        data = _models.samples(calib_dataset, model, steps) if data_needed else None
        size = (data.batch_size if data is not None else None) or size or 32
        trained, warnings = _native.prepare(model, made, data, size, steps, _strategies.progress("calibrating"))
        for warning in warnings:
            log(warning, 1)
        return _models.back(trained, self._model, None, self._custom_objects)

    @staticmethod
    def get_deploy_model(
        model: Any,
        convert_to_pof2s_quantize_strategy: bool = True,
        convert_to_fs_quantize_strategy: bool = False,
        use_fixneuron_quant: int = 0,
        use_framework_quant: bool = True,
        output_format: str = "",
        onnx_opset_version: int = 13,
        output_dir: str = "./quantize_results/",
        **_ignored: Any,
    ) -> Any:
        """What runs, of a model that was trained: normalizations folded, positions adjusted."""
        trained = _models.native(model, training=True)
        if trained.kind != "training":
            trained = trained.for_training()
        made, _ = _native.deploy(
            trained, bool(convert_to_pof2s_quantize_strategy), bool(convert_to_fs_quantize_strategy),
            int(use_fixneuron_quant) == 1,
        )
        result = _models.back(made, model)
        save(made, output_format, onnx_opset_version, output_dir)
        return result

    @staticmethod
    def dump_model(
        model: Any,
        dataset: Any = None,
        output_dir: Any = "./dump_results",
        dump_float: bool = False,
        weights_only: bool = False,
        **_ignored: Any,
    ) -> Any:
        """Writes every tensor of a quantized model as integers, in the vendor's layout.

        ``dataset`` is needed for activations: its first batch, or the first sample of arrays.
        """
        if dataset is None and not weights_only:
            raise InvalidDataset("`dataset` is needed to dump activation if weights_only is not set to be True.")
        try:
            return dump(model, dataset, output_dir=output_dir, dump_float=bool(dump_float), weights_only=bool(weights_only))
        except CannotCompile:
            # What has no integer form is dumped as the float operations compute it.
            return dump(
                model, dataset, output_dir=output_dir, dump_float=bool(dump_float), weights_only=bool(weights_only),
                numerics="vendor",
            )

    def _save(self, made: "_native.Model") -> None:
        def value(name: str) -> Any:
            return json.loads(self._strategy.value(name))

        save(made, value("output_format"), value("onnx_opset_version") or 13, value("output_dir"))


def save(made: "_native.Model", output_format: Any, opset: Any, output_dir: Any) -> Optional[str]:
    """Writes ``quantized_model`` in a format into a folder, as the vendor's calls do; returns the path."""
    if not output_format:
        return None
    if output_format not in _FORMATS:
        raise InvalidOption(f"Invalid output_format: {output_format}, supported output_format are: {list(_FORMATS)}")
    folder = os.fspath(output_dir or "./quantize_results/")
    make_folder(folder)
    path = os.path.join(folder, "quantized_model")
    if output_format == "onnx":
        write_file(f"{path}.onnx", made.onnx(int(opset)))
    elif output_format == "h5":
        write_file(f"{path}.h5", made.h5("quantized_model.h5"))
    elif output_format == "tf":
        made.export(path, "tf")
        return path
    else:
        made.export(f"{path}.pb", "pb")
    return f"{path}.{output_format}"


def _documented() -> None:
    """Adds the settings to the documentation of `quantize_model`."""
    lines: List[str] = ["", "        Settings:", ""]
    for name, takes, default, _, doc, old, _works in _native.settings():
        was = f" Once called ``{old}``." if old else ""
        lines.append(f"        ``{name}`` ({takes}, {default}): {' '.join(doc.split())}{was}")
    method = VitisQuantizer.quantize_model
    method.__doc__ = (method.__doc__ or "") + "\n".join(lines) + "\n"


_documented()
