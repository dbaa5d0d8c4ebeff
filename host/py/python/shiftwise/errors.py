"""Exceptions of the package: one hierarchy, each with a stable code and a hint."""

from __future__ import annotations

from typing import Dict, Tuple, Type

#: Every class by its code.
BY_CODE: Dict[str, Type["Error"]] = {}


class Error(ValueError):
    """What went wrong, with a stable ``code`` and a ``hint`` that says what to do about it."""

    code: str = "Shiftwise_Error"
    hint: str = ""

    def __init_subclass__(cls, code: str = "", hint: str = "") -> None:
        super().__init_subclass__()
        if code:
            cls.code, cls.hint = code, hint
            BY_CODE[code] = cls

    def __init__(self, message: str, code: str = "", hint: str = "") -> None:
        super().__init__(message)
        if code:
            self.code = code
        if hint:
            self.hint = hint
        if self.hint and hasattr(self, "add_note"):
            # From Python 3.11 on a traceback shows it.
            self.add_note(f"hint: {self.hint}")

    @property
    def message(self) -> str:
        """The sentence alone."""
        return str(self.args[0])

    def __reduce__(self) -> Tuple[Type["Error"], Tuple[str, str, str]]:
        return type(self), (self.message, self.code, self.hint)


class VendorError(Error):
    """An error that has a code of the vendor's; its text is in the vendor's form."""

    kind: str = ""

    def __init_subclass__(cls, code: str = "", hint: str = "", kind: str = "") -> None:
        super().__init_subclass__(code, hint)
        if kind:
            cls.kind = kind

    def __str__(self) -> str:
        return f"[VAI ERROR] [{self.code}][{self.kind}]{self.message}"


class UnsupportedLayer(
    VendorError, code="Quantizer_TF2_Unsupported_Layer", kind="Unsupported layer type",
    hint="pass `custom_objects={'Class': ...}`: a Keras class, a function of numpy arrays or a formula",
):
    """A layer, activation function or quantizer that is not known."""


class UnsupportedModel(
    VendorError, code="Quantizer_TF2_Unsupported_Model", kind="Unsupported model type",
    hint="functional and sequential Keras models, and files of a known format, are taken",
):
    """A model as a whole that can't be used."""


class InvalidInputShape(
    VendorError, code="Quantizer_TF2_Invalid_Input_Shape", kind="Invalid input shape",
    hint="pass `input_shape` with the model's own rank, such as [1, 224, 224, 3]",
):
    """An input shape that does not fit the model."""


class InvalidDataset(
    VendorError, code="Quantizer_TF2_Invalid_Calib_Dataset", kind="Invalid calibration dataset",
    hint="data is float32 [n, h, w, c] as the model's input expects it: an array, or an iterable of batches",
):
    """Data that can't be used."""


class InvalidTarget(
    VendorError, code="Quantizer_TF2_Invalid_Target", kind="Invalid Target",
    hint="`shiftwise.targets()` lists all known targets",
):
    """A target that does not exist or can't do what is asked."""


class InvalidLayer(Error, code="Shiftwise_Invalid_Layer", hint="change the layer in the model"):
    """A layer that can't be what its file says."""


class InvalidFile(
    Error, code="Shiftwise_Invalid_File",
    hint="check the file with the tool that wrote it; a copy may have been cut short",
):
    """A file that is damaged or not what was asked for."""


class WrongKind(
    Error, code="Shiftwise_Wrong_Kind_Of_File",
    hint="`quantize` makes a quantized model of a float one, `.compile(target=...)` a program of that",
):
    """A file or model of another kind than expected."""


class NoWeights(Error, code="Shiftwise_No_Weights", hint="save the model whole, with its weights"):
    """An architecture without weights."""


class FileProblem(
    Error, OSError, code="Shiftwise_Io",
    hint="check that the path is right, and that you may read or write there",
):
    """The file system refused."""


class InvalidOption(
    Error, code="Shiftwise_Invalid_Option",
    hint="`help(shiftwise.vitis_quantize.VitisQuantizer.quantize_model)` lists the settings",
):
    """An argument or a setting that makes no sense."""


class CannotCompile(Error, code="Shiftwise_Cannot_Compile", hint="change the layer or its quantization, or try another target"):
    """A quantized model that has no program."""


class RunFailed(Error, code="Shiftwise_Run_Failed", hint="see that the model was compiled by this version"):
    """A run that failed."""


def of(code: str, message: str) -> Error:
    """The exception for an error of the library."""
    own = BY_CODE.get(code)
    return own(message) if own else Error(message, code)
