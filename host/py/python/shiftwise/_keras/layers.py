"""The vendor's layers for a Keras: what ``quantized.h5`` and models in training are made of.

A layer keeps its configuration as the file has it, and a list of its variables, in the file's order: all layers are then made
the same way, whichever quantizers they have.
"""

from __future__ import annotations

import contextlib
import copy
import math
import threading
from typing import Any, Dict, Iterator, List, Optional, Tuple

import numpy as np

from . import quantizers
from .flavour import Flavour

Config = Dict[str, Any]

#: Ends of names of variables that no optimizer changes.
_STATE = ("_min", "_max", "_pos", "_scale", "_calib_hist", "_calib_bin_edges")
_STATISTICS = ("optimizer_step", "moving_mean", "moving_variance")

#: The configuration's key for the variables' names, shapes and types; the vendor's files have none.
VARIABLES = "shiftwise_variables"


def average_factor(kh: int, kw: int) -> float:
    """What the DPU's average of a window is times the exact one."""
    special = {(3, 3): 9 * 7 / 64, (5, 5): 250 / 256, (6, 6): 252 / 256, (7, 7): 49 * 21 / 1024, (14, 14): 196 * 21 / 4096}
    if kh > 255 or kw > 255:
        return 1.0
    if (kh, kw) in special:
        return special[(kh, kw)]
    n = kh * kw
    best = (math.inf, 0.0)
    for shift in range(7 + math.ceil(math.log2(n))):
        k = round(2**shift / n)
        error = float(abs(np.float32(k / 2**shift) - np.float32(1 / n)))
        if error < best[0]:
            best = (error, float(np.float32(np.float32(k / 2**shift) * np.float32(n))))
    return best[1]


def _lcm_factor(kh: int, kw: int) -> float:
    if kh != kw:
        common = kh * kw // math.gcd(kh, kw)
        if common <= 8:
            return average_factor(common, common)
    return average_factor(kh, kw)


def _activation_of(config: Config) -> Any:
    """The activation inside of the vendor's wrapper of one; None for none."""
    own = config.get("activation")
    while isinstance(own, dict) and str(own.get("class_name", "")).startswith("Vitis>"):
        if own["class_name"].endswith("NoQuantizeActivation"):
            return None
        own = own.get("config", {}).get("activation")
    return None if own == "linear" else own


def _plain(config: Config) -> Config:
    """A layer's configuration without the vendor's activations."""
    made = copy.deepcopy(config)
    if isinstance(made.get("activation"), dict) and str(made["activation"].get("class_name", "")).startswith("Vitis>"):
        made["activation"] = _activation_of(config) or "linear"
    return made


def _specs(config: Config, kind: str, names: str) -> List[Tuple[Any, str, Dict[str, Any]]]:
    """Names, quantizers and their parameters of one kind of what a layer quantizes."""
    own = (config.get("quantize_config") or {}).get("config", {})
    listed = own.get(names) or []
    given = own.get(f"{kind}_quantizers") or []
    return [(name, q["quantizer_type"], q["quantizer_params"]) for name, q in zip(listed, given)]


class Layers:
    """The classes for one Keras, by their names in files."""

    def __init__(self) -> None:
        self.classes: Dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["classes"][name]
        except KeyError:
            raise AttributeError(name) from None

    def custom_objects(self) -> Dict[str, Any]:
        """All of them as Keras' ``custom_objects``."""
        return {f"Vitis>{name}": own for name, own in self.classes.items()}


class _Calls(threading.local):
    """How this thread calls layers."""

    for_shapes = False


_CALLS = _Calls()


@contextlib.contextmanager
def calls_for_shapes() -> Iterator[None]:
    """Within it, layers are called for the shapes of their results: quantizers, which change none, are passed over.

    Keras traces every layer of a model that is put together, throws the trace away, and traces again what runs; the quantizers
    would be nine tenths of it.
    """
    before, _CALLS.for_shapes = _CALLS.for_shapes, True
    try:
        yield
    finally:
        _CALLS.for_shapes = before


_MADE: Dict[int, Layers] = {}


def layers_of(flavour: Flavour) -> Layers:
    """The classes for a Keras, which are made and registered once."""
    if id(flavour) not in _MADE:
        _MADE[id(flavour)] = _make(flavour)
    return _MADE[id(flavour)]


def _make(flavour: Flavour) -> Layers:  # noqa: C901
    keras, ops, two = flavour.keras, flavour.ops, flavour.version == 2
    activations = keras.activations

    def activate(name: Any, x: Any) -> Any:
        if name is None:
            return x
        return activations.get(name)(x)

    class Quantized(keras.layers.Layer):  # type: ignore[name-defined, misc]
        """What has quantizers: variables from a list, and their states by prefix."""

        def __init__(self, config: Config, inner: Any = None) -> None:
            super().__init__(name=config.get("name"), trainable=config.get("trainable", True), dtype="float32")
            self._kept = copy.deepcopy(config)
            self._by_name: Dict[str, Any] = {}
            self.inner = inner

        @classmethod
        def from_config(cls, config: Config, custom_objects: Any = None) -> Any:
            return cls(config)

        def get_config(self) -> Config:
            return copy.deepcopy({**self._kept, "name": self.name})

        def variable_list(self, input_shape: Any) -> List[Tuple[str, List[int], str]]:
            """Names, shapes and types of the variables in the file's order."""
            listed = self._kept.get(VARIABLES)
            return [(str(name), list(shape), str(dtype)) for name, shape, dtype in listed or []]

        def build(self, input_shape: Any) -> None:
            if self.inner is not None and not self.inner.built:
                self.inner.build(input_shape)
                self.inner.built = True
            own = {} if self.inner is None else {_last(v.name): v for v in self.inner.weights}
            for name, shape, dtype in self.variable_list(input_shape):
                if name in own:
                    self._by_name[name] = own[name]
                    continue
                trainable = not name.endswith(_STATE) and name not in _STATISTICS
                made = self.add_weight(name=name, shape=tuple(shape), dtype=dtype, initializer="zeros", trainable=trainable)
                self._by_name[name] = made
            self.built = True

        def state(self, prefix: str) -> Dict[str, Any]:
            ends = ("_min", "_max", "_pos", "_log_th")
            return {end: self._by_name[prefix + end] for end in ends if prefix + end in self._by_name}

        def fake(self, x: Any, prefix: str, kind: str, params: Config, training: Any) -> Any:
            if _CALLS.for_shapes:
                return x
            mode = self._kept.get("mode")
            learn = mode == "QAT" and bool(training) and not isinstance(training, str)
            if quantizers.ALIASES.get(kind, kind) == "TQTQuantizer" and learn:
                # The threshold is trained; only the range follows.
                pass
            return quantizers.apply(ops, x, kind, params, self.state(prefix), learn)

    class VitisQuantize(Quantized):
        """Quantizes its input."""

        def call(self, x: Any, training: Any = False) -> Any:
            own = self._kept["quantizer"]
            return self.fake(x, self._kept["name"], own["class_name"].split(">")[-1], own["config"], training)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

    def weights_of(layer: Any, training: Any) -> Dict[str, Any]:
        """A layer's weights, quantized where they are."""
        values = {
            name: own for name, own in layer._by_name.items()
            if not name.endswith((*_STATE, "_log_th")) and name != "optimizer_step"
        }
        for kind, names in (("weight", "quantizable_weights"), ("bias", "quantizable_biases")):
            for name, type_name, params in _specs(layer._kept, kind, names):
                if name in values:
                    values[name] = layer.fake(values[name] + 0.0, name, type_name, params, training)
        return values

    class QuantizeWrapper(Quantized):
        """A layer with quantizers for its weights, its activation and its output."""

        def __init__(self, config: Config) -> None:
            own = config["layer"]
            inner_class, inner_config = own["class_name"], _plain(own["config"])
            computed = _COMPUTED.get(inner_class)
            if isinstance(own["config"].get("layer"), dict):
                computed = None
            self_activation = _activation_of(own["config"])
            split = any(name.endswith("activation_min") for name, *_ in config.get(VARIABLES) or [])
            split = split or bool((config.get("quantize_config") or {}).get("config", {}).get("quantizable_activations"))
            inner = None
            if computed is None and not (inner_class == "Activation" and split):
                inner = make_layer(flavour, inner_class, inner_config)
            super().__init__(config, inner)
            self._computed, self._inner_config = computed, inner_config
            self._activation = self_activation if split or computed is not None else None
            self.layer_name = inner_config.get("name")

        def call(self, inputs: Any, training: Any = False) -> Any:
            x = inputs
            for index, kind, params in _specs(self._kept, "input", "quantizable_inputs"):
                prefix = f"input_{index}"
                if isinstance(x, (list, tuple)):
                    x = [self.fake(v, prefix, kind, params, training) if k == index else v for k, v in enumerate(x)]
                else:
                    x = self.fake(x, prefix, kind, params, training)
            y = self._result(x, training)
            before = [q for q in _specs(self._kept, "activation", "quantizable_activations")]
            if before and "pre_activation_min" in self._by_name:
                y = self.fake(y, "pre_activation", before[0][1], before[0][2], training)
            y = activate(self._activation, y)
            if before and "post_activation_min" in self._by_name:
                y = self.fake(y, "post_activation", before[0][1], before[0][2], training)
            for index, kind, params in _specs(self._kept, "output", "quantizable_outputs"):
                y = self.fake(y, f"output_{index}", kind, params, training)
            return y

        def _result(self, x: Any, training: Any) -> Any:
            if self._computed is not None:
                return self._computed(self._inner_config, x, weights_of(self, training), training)
            if self.inner is None:
                return x
            values = weights_of(self, training)
            kept = {}
            for name, _, _ in (
                *_specs(self._kept, "weight", "quantizable_weights"), *_specs(self._kept, "bias", "quantizable_biases"),
            ):
                if name in values and name in self.inner.__dict__:
                    kept[name] = self.inner.__dict__[name]
                    self.inner.__dict__[name] = values[name]
            try:
                return self.inner(x)
            finally:
                self.inner.__dict__.update(kept)

    class QuantizeWrapperV2(QuantizeWrapper):
        """The wrapper of block formats, which quantizes inputs, too."""

    class CustomOpWrapper(Quantized):
        """A custom layer, with or without quantizers."""

        def __init__(self, config: Config) -> None:
            own = config["layer"]
            inner_config = own["config"]
            if own["class_name"].startswith("Vitis>"):
                inner_config = {**inner_config, VARIABLES: config.get(VARIABLES)}
            super().__init__(config, make_layer(flavour, own["class_name"], inner_config))

        def build(self, input_shape: Any) -> None:
            super().build(input_shape)
            if isinstance(self.inner, Quantized):
                self._by_name = dict(self.inner._by_name)

        def variable_list(self, input_shape: Any) -> List[Tuple[str, List[int], str]]:
            return [] if isinstance(self.inner, Quantized) else super().variable_list(input_shape)

        def call(self, inputs: Any, training: Any = False) -> Any:
            return self.inner(inputs)

    class ConvBN(Quantized):
        """A convolution with its normalization in training, folded by the vendor's correction."""

        depthwise = False

        def call(self, x: Any, training: Any = False) -> Any:
            conv, norm = self._kept["conv_layer"]["config"], self._kept["bn_layer"]["config"]
            own = self._by_name
            kernel_name = "depthwise_kernel" if self.depthwise else "kernel"
            kernel = own[kernel_name] + 0.0
            eps, momentum = float(norm.get("epsilon", 1e-3)), float(norm.get("momentum", 0.99))
            gamma = own["gamma"] + 0.0 if "gamma" in own else None
            beta = own["beta"] + 0.0 if "beta" in own else 0.0
            b = own["bias"] + 0.0 if "bias" in own else 0.0
            mean, variance = own["moving_mean"] + 0.0, own["moving_variance"] + 0.0
            learns = bool(training)
            correction = None
            if learns:
                step = own["optimizer_step"]
                step.assign(step + 1)
                delay = self._kept.get("freeze_bn_delay")
                frozen = None if delay is None or delay < 0 else ops.cast(step >= int(delay), "float32")
                mean, variance, correction = self._batch(x, conv, kernel, b, (mean, variance), momentum, eps, frozen)
            sigma = ops.rsqrt(variance + eps)
            scale = sigma if gamma is None else gamma * sigma
            bias = beta - (mean - b) * scale
            if correction is not None:
                scale = scale * correction
            folded = kernel * (ops.reshape(scale, _channels(kernel.shape)) if self.depthwise else scale)
            for kind, names in (("weight", "quantizable_weights"), ("bias", "quantizable_biases")):
                for name, type_name, params in _specs(self._kept, kind, names):
                    if kind == "weight":
                        folded = self.fake(folded, name, type_name, params, training)
                    elif f"{name}_min" in own or f"{name}_log_th" in own:
                        bias = self.fake(bias, name, type_name, params, training)
            y = _convolved(conv, x, folded, self.depthwise)
            if correction is not None:
                y = y * (1.0 / correction)
            y = activate(_activation_of(self._kept), y + bias)
            for _, type_name, params in _specs(self._kept, "activation", "quantizable_activations"):
                if "post_activation_min" in own:
                    y = self.fake(y, "post_activation", type_name, params, training)
            return y

        def _batch(
            self, x: Any, conv: Config, kernel: Any, b: Any, moving: Any, momentum: float, eps: float, frozen: Any,
        ) -> Any:
            """Statistics of the batch, unless they are frozen; moving ones follow."""
            y = _convolved(conv, x, kernel, self.depthwise) + b
            mean = ops.mean(y, axis=(0, 1, 2))
            variance = ops.mean(ops.square(y - mean), axis=(0, 1, 2))
            count = ops.cast(ops.shape(y)[0] * ops.shape(y)[1] * ops.shape(y)[2], "float32")
            unbiased = ops.stop_gradient(variance) * (count / ops.maximum(count - 1.0, 1.0))
            share = 1.0 - momentum if frozen is None else (1.0 - momentum) * (1.0 - frozen)
            new_mean = moving[0] - (moving[0] - ops.stop_gradient(mean)) * share
            new_variance = moving[1] - (moving[1] - unbiased) * share
            self._by_name["moving_mean"].assign(new_mean)
            self._by_name["moving_variance"].assign(new_variance)
            correction = ops.rsqrt(variance + eps) / ops.rsqrt(ops.stop_gradient(new_variance) + eps)
            if frozen is None:
                return mean, variance, correction
            chosen = [new * (1.0 - frozen) + old * frozen for new, old in ((mean, moving[0]), (variance, moving[1]))]
            return chosen[0], chosen[1], correction * (1.0 - frozen) + frozen

    class DepthwiseConvBN(ConvBN):
        """The depthwise one."""

        depthwise = True

    def _channels(shape: Any) -> Tuple[int, ...]:
        return tuple(int(d) for d in shape[-2:])

    def _convolved(config: Config, x: Any, kernel: Any, depthwise: bool) -> Any:
        steps, rate = _pair(config.get("strides", 1)), _pair(config.get("dilation_rate", 1))
        padding = config.get("padding", "valid")
        if depthwise:
            return ops.depthwise_conv(x, kernel, steps, padding=padding, dilation_rate=rate)
        return ops.conv(x, kernel, steps, padding=padding, dilation_rate=rate)

    def _conv(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        y = _convolved(config, x, w["kernel"], False)
        return y + w["bias"] if "bias" in w else y

    def _depthwise(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        y = _convolved(config, x, w["depthwise_kernel"], True)
        return y + w["bias"] if "bias" in w else y

    def _transposed(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        kernel, steps = w["kernel"], _pair(config.get("strides", 1))
        padding = config.get("padding", "valid")
        extra, rate = config.get("output_padding"), _pair(config.get("dilation_rate", 1))
        if not two:
            extra = None if extra is None else _pair(extra)
            y = ops.conv_transpose(x, kernel, steps, padding=padding, output_padding=extra, dilation_rate=rate)
        else:
            tf, size = ops.tf, tf_shape(ops, x)
            spare = (None, None) if extra is None else _pair(extra)
            out = [
                _deconv_length(n, int(k), padding, s, p, d)
                for n, k, s, p, d in zip(size[1:3], kernel.shape[:2], steps, spare, rate)
            ]
            shape = tf.stack([size[0], out[0], out[1], int(kernel.shape[2])])
            y = keras.backend.conv2d_transpose(x, kernel, shape, steps, padding, "channels_last", rate)
        return y + w["bias"] if "bias" in w else y

    def _dense(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        y = ops.matmul(x, w["kernel"]) if len(x.shape) == 2 or not two else ops.tf.tensordot(x, w["kernel"], 1)
        return y + w["bias"] if "bias" in w else y

    def _prelu(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        return ops.maximum(x, 0.0) + w["alpha"] * ops.minimum(x, 0.0)

    def _norm(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        scale = ops.rsqrt(w["moving_variance"] + float(config.get("epsilon", 1e-3)))
        scale = scale * w["gamma"] if "gamma" in w else scale
        return x * scale + ((w["beta"] if "beta" in w else 0.0) - w["moving_mean"] * scale)

    def _layer_norm(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        mean = ops.mean(x, axis=-1, keepdims=True)
        variance = ops.mean(ops.square(x - mean), axis=-1, keepdims=True)
        y = (x - mean) * ops.rsqrt(variance + float(config.get("epsilon", 1e-3)))
        y = y * w["gamma"] if "gamma" in w else y
        return y + w["beta"] if "beta" in w else y

    def bf16(x: Any) -> Any:
        return quantizers.through(ops, x, ops.cast(ops.cast(x, "bfloat16"), "float32"))

    def _dpu_layer_norm(config: Config, x: Any, w: Dict[str, Any], training: Any) -> Any:
        x = bf16(x)
        d = bf16(x - ops.mean(x, axis=-1, keepdims=True))
        variance = ops.mean(ops.square(d), axis=-1, keepdims=True) + float(config.get("epsilon", 1e-3))
        y = bf16(d * bf16(ops.rsqrt(variance)))
        y = y * w["gamma"] if "gamma" in w else y
        return y + w["beta"] if "beta" in w else y

    _COMPUTED = {
        "Conv2D": _conv, "DepthwiseConv2D": _depthwise, "Conv2DTranspose": _transposed, "Dense": _dense, "PReLU": _prelu,
        "BatchNormalization": _norm, "LayerNormalization": _layer_norm, "Vitis>VitisLayernorm": _dpu_layer_norm,
    }

    class VitisSigmoid(keras.layers.Layer):  # type: ignore[name-defined, misc]
        """The DPU's hard sigmoid."""

        def call(self, x: Any) -> Any:
            return ops.clip(x + 3.0, 0.0, 6.0) * np.float32(2731 / 16384)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

    class VitisSoftmax(keras.layers.Layer):  # type: ignore[name-defined, misc]
        """The DPU's softmax, as nearly as floats have it."""

        def __init__(self, axis: int = -1, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.axis = axis

        def call(self, x: Any) -> Any:
            e = bf16(ops.exp(x))
            return bf16(e * bf16(1.0 / ops.sum(e, axis=-1, keepdims=True)))

        def get_config(self) -> Config:
            return {**super().get_config(), "axis": self.axis}

    class VitisAveragePooling2D(keras.layers.AveragePooling2D):  # type: ignore[name-defined, misc]
        """An average as the DPU computes it."""

        def call(self, x: Any) -> Any:
            kh, kw = _pair(self.pool_size)
            y = super().call(x)
            if kh == kw:
                return y * np.float32(average_factor(kh, kw))
            if tuple(y.shape[1:3]) == (1, 1):
                return y * np.float32(_lcm_factor(kh, kw))
            return y

    class VitisGlobalAveragePooling2D(keras.layers.GlobalAveragePooling2D):  # type: ignore[name-defined, misc]
        """A global average as the DPU computes it."""

        def call(self, x: Any) -> Any:
            kh, kw = x.shape[1], x.shape[2]
            y = super().call(x)
            if kh is None or kw is None:
                return y
            return y * np.float32(_lcm_factor(int(kh), int(kw)))

    made = Layers()
    for name, own in (
        ("QuantizeWrapper", QuantizeWrapper), ("QuantizeWrapperV2", QuantizeWrapperV2), ("VitisQuantize", VitisQuantize),
        ("CustomOpWrapper", CustomOpWrapper), ("VitisConvBNQuantize", ConvBN),
        ("VitisDepthwiseConvBNQuantize", DepthwiseConvBN), ("VitisSigmoid", VitisSigmoid), ("VitisSoftmax", VitisSoftmax),
        ("AveragePooling2D", VitisAveragePooling2D), ("VitisGlobalAveragePooling2D", VitisGlobalAveragePooling2D),
    ):
        own.__name__ = own.__qualname__ = name
        made.classes[name] = flavour.register(own, name)
    made.classes["VitisAveragePooling2D"] = VitisAveragePooling2D
    return made


def tf_shape(ops: Any, x: Any) -> List[Any]:
    """A shape whose known parts are numbers."""
    dynamic = ops.shape(x)
    return [dynamic[k] if own is None else int(own) for k, own in enumerate(x.shape)]


def _deconv_length(n: Any, kernel: int, padding: str, stride: int, spare: Optional[int], rate: int) -> Any:
    kernel = kernel + (kernel - 1) * (rate - 1)
    if spare is None:
        return n * stride + max(kernel - stride, 0) if padding == "valid" else n * stride
    pad = kernel // 2 if padding == "same" else 0
    return (n - 1) * stride + kernel - 2 * pad + spare


def _pair(value: Any) -> Tuple[int, int]:
    if isinstance(value, (list, tuple)):
        return int(value[0]), int(value[-1])
    return int(value), int(value)


def _last(name: str) -> str:
    return name.split("/")[-1].split(":")[0]


def _registered(flavour: Flavour) -> Dict[str, Any]:
    """Classes that the program has registered with Keras, by their names without a package."""
    utils = flavour.keras.saving if hasattr(flavour.keras.saving, "get_custom_objects") else flavour.keras.utils
    return {name.split(">")[-1]: own for name, own in utils.get_custom_objects().items() if not name.startswith("Vitis>")}


#: Settings that a Keras of the third generation calls otherwise; None drops them.
_RENAMED: Dict[str, Optional[str]] = {"batch_input_shape": "batch_shape", "sparse": None, "ragged": None}


def make_layer(flavour: Flavour, class_name: str, config: Config, custom_objects: Optional[Dict[str, Any]] = None) -> Any:
    """A layer of a class and its configuration in the form of Keras 2."""
    name = class_name.split(">")[-1]
    if class_name.startswith("Vitis>"):
        return layers_of(flavour).classes[name].from_config(config)
    custom = {**_registered(flavour), **CUSTOM, **(custom_objects or {})}
    for key in (class_name, name):
        if isinstance(custom.get(key), type):
            return _from_config(custom[key], config)
    own = getattr(flavour.keras.layers, name, None)
    if own is None and flavour.version == 2:
        return flavour.keras.layers.deserialize({"class_name": class_name, "config": config})
    if own is None:
        from ..errors import UnsupportedLayer

        raise UnsupportedLayer(f"layer `{config.get('name')}`: class `{class_name}` is not of Keras {flavour.keras.__version__}")
    if flavour.version == 3:
        config = _third_generation(name, config)
    return _from_config(own, config)


def _third_generation(name: str, config: Config) -> Config:
    """Settings of Keras 2 as Keras 3 takes them."""
    made: Config = {}
    for key, value in config.items():
        renamed = _RENAMED.get(key, key)
        if renamed is not None:
            made[renamed] = value
    if name == "LeakyReLU" and "alpha" in made:
        made["negative_slope"] = made.pop("alpha")
    if isinstance(made.get("axis"), list) and len(made["axis"]) == 1:
        made["axis"] = made["axis"][0]
    if isinstance(made.get("dtype"), dict):
        made["dtype"] = made["dtype"].get("config", {}).get("name", "float32")
    return made


#: Classes that `custom_objects` or a custom strategy has named, for models that are read later.
CUSTOM: Dict[str, Any] = {}


def _from_config(own: Any, config: Config) -> Any:
    """A layer of a class; settings that the class does not know are left out."""
    config = dict(config)
    for _ in range(len(config) + 1):
        try:
            return own.from_config(dict(config))
        except (TypeError, ValueError) as e:
            text = str(e)
            unknown = [key for key in config if f"'{key}'" in text and key not in ("name",)]
            if not unknown or "nrecognized" not in text and "unexpected keyword" not in text:
                raise
            for key in unknown:
                config.pop(key)
    return own.from_config(config)
