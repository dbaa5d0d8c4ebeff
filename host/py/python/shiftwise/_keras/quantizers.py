"""The vendor's quantizers as operations of Keras: fake-quantized values forward, straight-through gradients backward.

Every function takes ``ops``, which has the names of ``keras.ops``. Forward values are exact: what carries a gradient is added as
a difference that is zero.
"""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np

Params = Dict[str, Any]
Value = Any

#: Powers of two by their exponents from -126 on: a table is exact where a compiled power is not.
_POWERS = np.float32(2.0) ** np.arange(-126, 128, dtype=np.float32)
_LN2 = np.float32(np.log(np.float32(2.0)))
_FLOAT_TYPES = ("BFPQuantizer",)

#: Names of old strategies.
ALIASES = {
    "LastValueQuantPosQuantizer": "Pof2SQuantizer",
    "LastValueLogThQuantizer": "TQTQuantizer",
    "LastValueMinMaxQuantizer": "FSQuantizer",
}

#: What each quantizer keeps, by the ends of its variables' names, with the type of each.
VARIABLES: Dict[str, List[Tuple[str, str]]] = {
    "Pof2SQuantizer": [("_min", "float32"), ("_max", "float32"), ("_pos", "float32")],
    "TQTQuantizer": [("_min", "float32"), ("_max", "float32"), ("_log_th", "float32")],
    "FSQuantizer": [
        ("_min", "float32"), ("_max", "float32"), ("_scale", "float32"),
        ("_calib_hist", "int32"), ("_calib_bin_edges", "float32"),
    ],
    "BFPQuantizer": [],
}


def two_to(ops: Any, exponent: Value) -> Value:
    """2 to a whole power, exactly."""
    index = ops.cast(ops.clip(exponent, -126.0, 127.0) + 126.0, "int32")
    return ops.take(ops.convert_to_tensor(_POWERS), index, axis=0)


def rounded(ops: Any, x: Value, mode: int) -> Value:
    """Rounds as the vendor's modes do, in float32."""
    if mode == 0:
        return ops.round(x)
    if mode == 1:
        return ops.floor(x + 0.5)
    if mode == 2:
        half = ops.where(x > 0, ops.ceil(x), ops.floor(x))
        return ops.where(x - ops.floor(x) == 0.5, half, ops.round(x))
    return ops.floor(x)


def limits(params: Params) -> Tuple[float, float]:
    """The least and the largest integer."""
    bits = int(params.get("bit_width", 8))
    if params.get("unsigned"):
        return 0.0, float(2**bits - 1)
    least = -(2.0 ** (bits - 1)) + (1.0 if params.get("narrow_range") else 0.0)
    return least, float(2 ** (bits - 1) - 1)


def through(ops: Any, x: Value, y: Value, inside: Optional[Value] = None) -> Value:
    """``y``, with the gradient of ``x``, where it is inside."""
    carried = x - ops.stop_gradient(x)
    if inside is not None:
        carried = carried * ops.stop_gradient(ops.cast(inside, "float32"))
    return ops.stop_gradient(y) + carried


def extrema(ops: Any, x: Value, params: Params) -> Tuple[Value, Value]:
    """The range of a tensor or of its channels, widened as the grid needs it."""
    rank = len(x.shape)
    if params.get("per_channel") and rank >= 2:
        axis = int(params.get("channel_axis", -1)) % rank
        axes = tuple(k for k in range(rank) if k != axis)
        low, high = ops.min(x, axis=axes, keepdims=True), ops.max(x, axis=axes, keepdims=True)
    elif params.get("per_channel"):
        low = high = x
    else:
        low, high = ops.min(x), ops.max(x)
    bits = int(params.get("bit_width", 8))
    if not params.get("symmetry", True) or params.get("unsigned"):
        return ops.minimum(low, 0.0), ops.maximum(high, 0.0)
    if params.get("narrow_range"):
        return ops.minimum(low, -high), ops.maximum(high, -low)
    ratio = np.float32(-(2.0**bits - 2) / 2.0**bits)
    return ops.minimum(low, high * np.float32(1 / ratio)), ops.maximum(high, low * ratio)


def _asymmetric(ops: Any, x: Value, s: Value, low: Value, high: Value, params: Params) -> Value:
    least, most = limits(params)
    zero = ops.clip(rounded(ops, least - low * s, 2), least, most)
    shift = (least - zero) / s
    q = ops.clip(least + rounded(ops, (x - shift) * s, int(params["round_mode"])), least, most)
    return (q - least) / s + shift


def pof2(ops: Any, x: Value, pos: Value, low: Value, high: Value, params: Params) -> Value:
    """Values on the grid of a position."""
    s = two_to(ops, pos)
    if not params.get("symmetry", True):
        return _asymmetric(ops, x, s, low, high, params)
    least, most = limits(params)
    mode = int(params["round_mode"])
    fix = int(params.get("use_fixneuron_quant") or 0)
    if fix and _has_fix_neuron(params):
        # Weights are rounded half up and activations half away: the vendor's operator has it so.
        mode = 1 if fix == 2 else 2
        if mode == 2:
            q = x * s
            q = ops.where(q >= 0, ops.floor(q + 0.5), ops.ceil(q - 0.5))
            return ops.clip(q, least, most) * two_to(ops, -pos)
    return ops.clip(rounded(ops, x * s, mode), least, most) * two_to(ops, -pos)


def _has_fix_neuron(params: Params) -> bool:
    plain = params.get("bit_width", 8) == 8 and params.get("symmetry", True) and params.get("method", 0) in (0, 1)
    return plain and not any(params.get(key) for key in ("unsigned", "narrow_range", "per_channel"))


def position(ops: Any, x: Value, low: Value, high: Value, params: Params) -> Value:
    """The position that calibration would choose for a tensor."""
    least, most = limits(params)
    if not params.get("symmetry", True):
        step = (high - low) * np.float32(1 / (most - least))
    elif params.get("unsigned"):
        step = high * np.float32(1 / most)
    else:
        step = ops.maximum(low * np.float32(1 / least), high * np.float32(1 / most))
    step = ops.maximum(step, np.float32(2.0**-52))
    first = ops.floor(-ops.log(step) * np.float32(1 / _LN2))
    if int(params.get("method", 0)) != 1:
        return first
    losses = [ops.sum(ops.square(x - pof2(ops, x, first + float(k), low, high, params))) for k in range(5)]
    return first + ops.cast(ops.argmin(ops.stack(losses)), "float32")


def tqt(ops: Any, x: Value, threshold: Value, low: Value, high: Value, params: Params) -> Value:
    """Values on the grid of a trained threshold, with the gradients of Jain et al."""
    bits = int(params.get("bit_width", 8))
    pos = ops.stop_gradient(bits - 1.0 - ops.ceil(threshold))
    s, back = two_to(ops, pos), two_to(ops, -pos)
    if not params.get("symmetry", True):
        return through(ops, x, _asymmetric(ops, x, s, low, high, params))
    least, most = limits(params)
    r = rounded(ops, ops.stop_gradient(x) * s, int(params["round_mode"]))
    q = ops.clip(r, least, most)
    inside = ops.logical_and(r >= least, r <= most)
    y = q * back
    slope = ops.stop_gradient(_LN2 * ops.where(inside, y - x, y))
    return through(ops, x, y, inside) + (threshold - ops.stop_gradient(threshold)) * slope


def affine(ops: Any, x: Value, low: Value, high: Value, params: Params) -> Value:
    """Values on the grid of a range, with the arithmetic of the framework's operator or the vendor's own."""
    least, most = limits(params)
    framework = params.get("use_framework_quant", True)
    if framework and params.get("unsigned"):
        scale = most / ops.where(high == 0, 1.0, high)
        y = ops.floor(ops.clip(x, 0.0, ops.maximum(high, 0.0)) * scale + 0.5) * (high / most)
        return through(ops, x, ops.where(high == 0, ops.zeros_like(x), y), ops.logical_and(x >= low, x <= high))
    if framework:
        first = 1.0 if params.get("narrow_range") else 0.0
        last = float(2 ** int(params.get("bit_width", 8)) - 1)
        none = ops.logical_and(low == 0, high == 0)
        step = ops.where(none, ops.ones_like(high), (high - low) / (last - first))
        z = first - low / step
        zero = ops.clip(ops.floor(z + 0.5), first, last)
        bottom, top = (first - zero) * step, (last - zero) * step
        inverse = 1.0 / step
        k = ops.floor(-bottom * inverse + 0.5)
        kept = ops.maximum(ops.minimum(x, top), bottom)
        y = ops.floor(((kept - bottom) * inverse - k) + 0.5) * step
        y = ops.where(none, ops.zeros_like(x), y)
        return through(ops, x, y, ops.logical_and(x >= bottom, x <= top))
    s = (most - least) / (high - low)
    if params.get("symmetry", True):
        y = ops.clip(rounded(ops, x * s, int(params["round_mode"])), least, most) / s
    else:
        y = _asymmetric(ops, x, s, low, high, params)
    return through(ops, x, y, ops.logical_and(x >= low, x <= high))


def _exponent(ops: Any, v: Value) -> Value:
    return ops.floor(ops.log(v + np.float32(2.0**-23)) * np.float32(1 / _LN2))


def block(ops: Any, x: Value, params: Params) -> Value:
    """Values of block floating point, of its sibling with shared microexponents, or of bfloat16."""
    kind = params.get("data_format", "fp32")
    if kind == "fp32":
        return x
    if kind == "bf16":
        return through(ops, x, ops.cast(ops.cast(x, "bfloat16"), "float32"))
    rank = len(x.shape)
    axis = int(params.get("channel_axis", -1)) % rank
    order = list(range(rank))
    order[axis], order[-1] = order[-1], order[axis]
    finite = ops.isfinite(x)
    moved = ops.transpose(ops.where(finite, x, ops.zeros_like(x)), order) if axis != rank - 1 else ops.where(
        finite, x, ops.zeros_like(x)
    )
    width = int(moved.shape[-1])
    tile = 12 if kind == "msfp" else int(params.get("tile_size", 8))
    spare = -width % tile
    padded = ops.pad(moved, [[0, 0]] * (rank - 1) + [[0, spare]]) if spare else moved
    whole = ops.shape(padded)
    blocks = ops.reshape(padded, (-1, (width + spare) // tile, tile))
    bits, mode = int(params.get("bit_width", 16)) - 9, int(params.get("round_mode", 1))
    if kind == "msfp":
        y = _msfp(ops, blocks, bits)
    else:
        e = _exponent(ops, ops.max(ops.abs(blocks), axis=-1, keepdims=True))
        step, bound = two_to(ops, e - (bits - 1.0)), two_to(ops, e + 1.0)
        back = two_to(ops, (bits - 1.0) - e)
        y = ops.clip(rounded(ops, blocks * back, mode) * step, -(bound - step), bound - step)
    y = ops.reshape(y, whole)[..., :width]
    y = ops.transpose(y, order) if axis != rank - 1 else y
    return through(ops, x, ops.where(finite, y, x))


def _msfp(ops: Any, blocks: Value, bits: int) -> Value:
    pairs = ops.reshape(blocks, (-1, int(blocks.shape[1]), 6, 2))
    own = _exponent(ops, ops.max(ops.abs(pairs), axis=-1, keepdims=True))
    shared = ops.max(own, axis=2, keepdims=True)
    e = ops.where(shared - own < 1, own, shared - 1.0)
    step, bound = two_to(ops, e - (bits - 1.0)), two_to(ops, shared + 1.0)
    y = rounded(ops, pairs * two_to(ops, (bits - 1.0) - e), 2) * step
    return ops.reshape(ops.clip(y, -(bound - step), bound - step), ops.shape(blocks))


def apply(
    ops: Any, x: Value, kind: str, params: Params, state: Dict[str, Any], learn: bool,
) -> Value:
    """Quantizes by a quantizer's stored state; with ``learn`` the state follows the tensor first."""
    kind = ALIASES.get(kind, kind)
    if kind in _FLOAT_TYPES:
        return block(ops, x, params)
    if learn and "_min" in state:
        low, high = extrema(ops, ops.stop_gradient(x), params)
        if kind == "FSQuantizer":
            if int(params.get("method", 0)) in (2, 3):
                return x
            low, high = ops.minimum(state["_min"] + 0.0, low), ops.maximum(state["_max"] + 0.0, high)
        state["_min"].assign(low)
        state["_max"].assign(high)
        if kind == "Pof2SQuantizer":
            state["_pos"].assign(position(ops, ops.stop_gradient(x), low, high, params))
    low, high = state["_min"] + 0.0, state["_max"] + 0.0
    if kind == "FSQuantizer":
        return affine(ops, x, low, high, params)
    if kind == "TQTQuantizer":
        return tqt(ops, x, state["_log_th"] + 0.0, low, high, params)
    return through(ops, x, pof2(ops, x, state["_pos"] + 0.0, low, high, params))
