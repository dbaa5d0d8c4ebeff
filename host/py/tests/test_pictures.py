"""Folders of pictures as data."""

from __future__ import annotations

import pathlib
import struct
import zlib
from typing import Any

import numpy as np
import pytest
import shiftwise


def png(path: pathlib.Path, pixels: Any) -> None:
    """Writes a grey picture."""
    height, width = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def pictures(digits: Any, count: int = 40) -> Any:
    """Pictures in the folder `flat` and, by class, in `classes`; the samples and labels that they are."""
    grey = np.clip(np.rint(digits[1][:count, ..., 0] * 255), 0, 255).astype(np.uint8)
    for k, (own, label) in enumerate(zip(grey, digits[2])):
        for folder in (pathlib.Path("flat"), pathlib.Path("classes", str(label))):
            folder.mkdir(parents=True, exist_ok=True)
            png(folder / f"{k:03}.png", own)
    return grey[..., None].astype(np.float32) / np.float32(255), digits[2][:count]


def test_a_folder_gives_the_samples_that_its_pictures_are(lenet: str, digits: Any) -> None:
    x, _ = pictures(digits)
    model = shiftwise.load_model(lenet)
    folder = shiftwise.Pictures("flat", scale=1 / 255)
    np.testing.assert_allclose(model.predict(folder), model.predict(x), atol=1e-6)
    np.testing.assert_allclose(model.predict({model.inputs[0].name: folder}), model.predict(x), atol=1e-6)
    whole = shiftwise.Pictures("flat")
    assert shiftwise.quantize(lenet, whole).to_h5() == shiftwise.quantize(lenet, "flat").to_h5()


def test_folders_named_for_classes_are_labels(lenet: str, digits: Any) -> None:
    x, y = pictures(digits)
    folder = shiftwise.Pictures("classes", scale=1 / 255)
    assert folder.classes == sorted(set(map(str, y)))
    assert folder.labels is not None and sorted(folder.labels) == sorted(np.searchsorted(folder.classes, y.astype(str)))
    model = shiftwise.load_model(lenet)
    if len(folder.classes) == 10:
        assert model.evaluate(folder) == model.evaluate(x, y)
        qat = shiftwise.vitis_quantize.VitisQuantizer(lenet).get_qat_model(True, folder)
        qat.compile("sgd", "sparse_categorical_crossentropy")
        assert qat.fit(folder, epochs=1, verbose=0).history["loss"][0] < 1


def test_what_pictures_can_not_be_is_said(lenet: str, digits: Any) -> None:
    pictures(digits, 4)
    wrong = {
        "resize": {"resize": [0, 8]}, "height": {"resize": 3}, "filter": {"filter": "cubic"}, "order": {"order": "grb"},
        "means": {"mean": [1, 2]}, "finite": {"scale": float("nan")}, "numbers": {"mean": "a"},
    }
    for word, options in wrong.items():
        with pytest.raises(shiftwise.Error, match=word):
            shiftwise.load_model(lenet).predict(shiftwise.Pictures("flat", **options))
    with pytest.raises(shiftwise.Error, match="nowhere"):
        shiftwise.Pictures("nowhere")
    pathlib.Path("flat", "005.png").write_bytes(b"\x89PNG")
    with pytest.raises(shiftwise.Error, match="005.png"):
        shiftwise.load_model(lenet).predict(shiftwise.Pictures("flat"))
