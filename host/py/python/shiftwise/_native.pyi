"""The native module: see the documentation of `shiftwise`."""

import os
from typing import Any, Callable, Protocol, Sequence, final

import numpy as np
import numpy.typing as npt

__all__ = [
    "__version__",
    "main",
    "Model",
    "Pictures",
    "Strategy",
    "Trainer",
    "Deployable",
    "settings",
    "strategies",
    "quantize",
    "prepare",
    "deploy",
    "analyze",
    "compare",
    "diff",
    "dump",
    "estimate",
    "info",
    "inspect",
    "report",
    "targets",
    "verify",
    "compile",
]

__version__: str

_Path = str | os.PathLike[str]
_Array = npt.NDArray[np.float32]
_Shapes = Sequence[tuple[str | None, Sequence[int]]]
_Custom = Sequence[tuple[str, Any]]
_Progress = Callable[[int, int], Any] | None

class _Samples(Protocol):
    def __len__(self) -> int: ...
    def batch(self, start: int, count: int, /) -> list[Any]: ...

@final
class Model:
    @staticmethod
    def open(path: _Path, input_shapes: _Shapes = ..., custom: _Custom = ..., training: bool = False) -> Model: ...
    @staticmethod
    def from_bytes(
        name: _Path, data: bytes, input_shapes: _Shapes = ..., custom: _Custom = ..., training: bool = False
    ) -> Model: ...
    @property
    def kind(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def inputs(self) -> list[tuple[str, list[int]]]: ...
    @property
    def outputs(self) -> list[tuple[str, list[int]]]: ...
    def layers(self) -> list[tuple[str, str, list[int], int, list[str]]]: ...
    def weights(self, layer: str) -> list[tuple[str, _Array]]: ...
    def with_weights(self, layer: str, weights: Sequence[Any]) -> Model: ...
    def quantize_info(self) -> str: ...
    def h5(self, name: _Path = ...) -> bytes: ...
    def export(self, path: _Path, format: str, opset: int = 13, qdq: bool = False) -> str: ...
    def onnx(self, opset: int = 13, qdq: bool = False) -> bytes: ...
    def predict(
        self, data: _Samples, batch_size: int, each: Callable[[list[_Array]], Any], numerics: str = "vendor"
    ) -> None: ...
    def for_training(self) -> Model: ...
    def __reduce__(self) -> Any: ...

@final
class Pictures:
    def __new__(
        cls,
        path: _Path,
        shape: Sequence[int],
        resize: Sequence[int] | None = None,
        filter: str = "pil",
        order: str = "rgb",
        exif: bool = False,
        mean: Sequence[float] = ...,
        scale: float | None = None,
    ) -> Pictures: ...
    def __len__(self) -> int: ...
    def batch(self, start: int, count: int) -> _Array: ...
    @property
    def warnings(self) -> list[str]: ...

@final
class Strategy:
    def __new__(cls, name: str = "pof2s") -> Strategy: ...
    def copy(self) -> Strategy: ...
    def replace(self, text: str) -> None: ...
    def update(self, text: str) -> None: ...
    def set(self, key: str, value: str) -> str | None: ...
    def dump(self, verbose: int) -> str: ...
    def value(self, key: str) -> str: ...
    def needs_data(self) -> bool: ...
    def changes(self, name: str) -> str: ...

@final
class Trainer:
    def __new__(
        cls,
        model: Model,
        losses: Sequence[str | None],
        weights: Sequence[float],
        optimizer: str = "adam",
        rate: float = 1e-3,
        momentum: float = 0.0,
        weight_decay: float | None = None,
        threshold_rate: float | None = None,
        seed: int = 0,
    ) -> Trainer: ...
    def step(
        self, inputs: Sequence[Any], labels: Sequence[Any], judge: Callable[[int, _Array], Any] | None = None
    ) -> float: ...
    def set_rates(self, rate: float, threshold_rate: float | None = None) -> None: ...
    @property
    def steps(self) -> int: ...
    def model(self, like: Model) -> Model: ...

@final
class Deployable:
    def __new__(cls, name: _Path, data: bytes) -> Deployable: ...
    def bytes(self) -> bytes: ...
    @property
    def inputs(self) -> list[tuple[str, list[int]]]: ...
    @property
    def target(self) -> str: ...
    def listing(self) -> str: ...
    def simulate(
        self,
        data: _Samples,
        samples: int = 1,
        functional: bool = False,
        clock: str | None = None,
        trace: _Path | None = None,
        dump_dir: _Path | None = None,
    ) -> tuple[list[_Array], str]: ...
    def save(self, path: _Path) -> None: ...

def main(arguments: Sequence[str]) -> int: ...
def settings() -> list[tuple[str, str, str, bool, str, str | None, bool]]: ...
def strategies() -> list[list[str]]: ...
def quantize(
    model: Model,
    strategy: Strategy,
    data: _Samples | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
    progress: _Progress = None,
) -> tuple[Model, str]: ...
def prepare(
    model: Model,
    strategy: Strategy,
    data: _Samples | None = None,
    batch_size: int = 32,
    steps: int | None = None,
    progress: _Progress = None,
) -> tuple[Model, list[str]]: ...
def deploy(model: Model, to_pof2s: bool = True, to_fs: bool = False, fix_neuron: bool = False) -> tuple[Model, str]: ...
def analyze(
    model: Model,
    strategy: Strategy,
    data: _Samples,
    batch_size: int = 32,
    steps: int | None = None,
    seed: int = 0,
    samples: int = 32,
    measured: _Samples | None = None,
    for_dpu: bool = False,
    remedies: bool = True,
) -> tuple[str, str | None]: ...
def compare(first: _Path, second: _Path) -> tuple[str, bool]: ...
def diff(a: _Path, b: _Path) -> str: ...
def dump(
    model: Model,
    output_dir: _Path,
    data: _Samples | None = None,
    dump_float: bool = False,
    weights_only: bool = False,
    samples: int = 1,
    numerics: str = "vendor",
) -> str: ...
def estimate(
    model: Model,
    target: str | None = None,
    board: str | None = None,
    clock: str | None = None,
    cores: int | None = None,
    trace: _Path | None = None,
) -> str: ...
def info(path: _Path) -> str: ...
def inspect(
    model: Model,
    strategy: Strategy,
    target: str | None = None,
    board: str | None = None,
    text_file: _Path | None = None,
    plot_file: _Path | None = None,
    model_file: _Path | None = None,
    verbose: bool = False,
) -> tuple[str, list[str], Model]: ...
def report(
    model: Model,
    strategy: Strategy,
    output: _Path | None = None,
    target: str | None = None,
    board: str | None = None,
    data: _Samples | None = None,
    batch_size: int = 32,
    steps: int | None = None,
) -> tuple[str, str]: ...
def targets(name: str | None = None) -> str: ...
def verify(
    model: Model,
    data: _Samples,
    target: str | None = None,
    board: str | None = None,
    samples: int = 1,
) -> tuple[str, bool]: ...
def compile(
    model: Model, target: str | None = None, board: str | None = None, strict: bool = False, fast: bool = False
) -> tuple[Deployable, str]: ...
