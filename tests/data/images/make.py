#!/usr/bin/env python3
"""Writes small pictures of every kind, and what PIL and TensorFlow make of them.

    pip install pillow==13.0.0 tensorflow-cpu==2.21.0
    python make.py

`expected.npz` has, for a picture FILE: `FILE` as PIL converts it, red, green, blue and grey; `FILE:turned` where it asks
to be turned, and for scaled ones `FILE:pil:HxW` and `FILE:tf:HxW` (colours).
"""

import io
import os
import warnings
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
warnings.simplefilter("ignore")

import numpy as np
import tensorflow as tf
from PIL import Image, ImageOps

HERE = Path(__file__).resolve().parent
expected = {}


def noise(h, w, c, seed, kind=np.uint8):
    """Blobs and noise, so that both smooth and sharp parts occur."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (h // 4 + 2, w // 4 + 2, c)).repeat(4, 0).repeat(4, 1)[:h, :w]
    mixed = np.where(np.arange(w)[None, :, None] < w // 2, coarse, rng.integers(0, 256, (h, w, c)))
    return (mixed * (257 if kind == np.uint16 else 1)).astype(kind)


def encoded(picture, form, **options):
    stream = io.BytesIO()
    picture.save(stream, form, **options)
    return stream.getvalue()


def patched(data, marker, offset, values):
    """A JPEG with other bytes at an offset behind the first marker."""
    data, at = bytearray(data), data.index(bytes([0xFF, marker])) + offset
    data[at : at + len(values)] = values
    return bytes(data)


def png16(array, colour, transparent=None):
    """A PNG of 16 bits, which PIL writes for plain grey only."""
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    h, w = array.shape[:2]
    rows = b"".join(b"\0" + array[y].astype(">u2").tobytes() for y in range(h))
    parts = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0))
    parts += chunk(b"tRNS", transparent) if transparent else b""
    return b"\x89PNG\r\n\x1a\n" + parts + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def pngs():
    rgb, grey = Image.fromarray(noise(7, 9, 3, 1)), Image.fromarray(noise(7, 9, 1, 2)[..., 0])
    yield "rgb.png", encoded(rgb, "PNG")
    yield "grey.png", encoded(grey, "PNG")
    yield "rgba.png", encoded(Image.fromarray(noise(7, 9, 4, 3)), "PNG")
    yield "la.png", encoded(Image.fromarray(noise(7, 9, 2, 4)), "PNG")
    palette = rgb.quantize(13)
    yield "palette.png", encoded(palette, "PNG")
    yield "palette_transparent.png", encoded(palette, "PNG", transparency=3)
    yield "palette_alpha.png", encoded(palette, "PNG", transparency=bytes(range(0, 130, 10)))
    for bits in (1, 2, 4):
        few = rgb.quantize(2**bits)
        yield f"palette{bits}.png", encoded(few, "PNG", bits=bits)
    yield "one_bit.png", encoded(grey.convert("1"), "PNG")
    yield "rgb_transparent.png", encoded(rgb, "PNG", transparency=tuple(map(int, np.array(rgb)[0, 0])))
    yield "grey_transparent.png", encoded(grey, "PNG", transparency=int(np.array(grey)[0, 0]))
    deep = noise(7, 9, 4, 5, np.uint16) + np.arange(63, dtype=np.uint16).reshape(7, 9, 1)
    dark = (np.arange(63).reshape(7, 9, 1) * 9).astype(np.uint16)
    yield "grey16.png", png16(dark, 0)
    yield "grey16_transparent.png", png16(dark, 0, b"\0\x09")
    yield "rgb16.png", png16(deep[..., :3], 2)
    yield "la16.png", png16(deep[..., :2], 4)
    yield "rgba16.png", png16(deep, 6)
    yield "interlaced.png", INTERLACED
    for turn in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = turn
        yield f"turn{turn}.png", encoded(Image.fromarray(noise(3, 5, 3, turn)), "PNG", exif=exif)


# Adam7, which PIL does not write: 2x2, grey: passes of the pixels (0,0), (1,0), and the second row.
def interlaced():
    import struct
    import zlib

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    data = b"\0\x0a" + b"\0\x50" + b"\0\xc8\xff"
    header = struct.pack(">IIBBBBB", 2, 2, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


INTERLACED = interlaced()


def jpegs():
    rgb = Image.fromarray(noise(21, 20, 3, 6))
    for name in ("4:4:4", "4:2:2", "4:2:0"):
        for progressive in (False, True):
            short = name.replace(":", "") + ("p" if progressive else "")
            yield f"{short}.jpg", encoded(rgb, "JPEG", subsampling=name, quality=90, progressive=progressive)
    # Sizes at which the spreading of colours has cases of its own.
    for h, w in ((1, 1), (2, 3), (5, 4), (3, 9)):
        yield f"small{h}x{w}.jpg", encoded(Image.fromarray(noise(h, w, 3, h)), "JPEG", subsampling="4:2:0")
    # Blocks in the same order, said to lie otherwise.
    square = encoded(Image.fromarray(noise(16, 16, 3, 7)), "JPEG", subsampling="4:2:2")
    yield "440.jpg", patched(square, 0xC0, 11, [0x12])
    square = encoded(Image.fromarray(noise(32, 32, 3, 8)), "JPEG", subsampling="4:2:0")
    yield "411.jpg", patched(square, 0xC0, 11, [0x41])
    yield "restart.jpg", encoded(rgb, "JPEG", restart_marker_blocks=2)
    yield "rgb.jpg", encoded(rgb, "JPEG", keep_rgb=True)
    yield "grey.jpg", encoded(rgb.convert("L"), "JPEG")
    cmyk = encoded(Image.fromarray(noise(9, 11, 4, 9), "CMYK"), "JPEG")
    yield "cmyk.jpg", cmyk
    yield "ycck.jpg", patched(cmyk, 0xEE, 15, [2])
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "turn6.jpg", encoded(Image.fromarray(noise(9, 14, 3, 10)), "JPEG", exif=exif)


def bitmaps():
    rgb = Image.fromarray(noise(7, 9, 3, 11))
    yield "rgb.bmp", encoded(rgb, "BMP")
    yield "grey.bmp", encoded(rgb.convert("L"), "BMP")
    yield "palette.bmp", encoded(rgb.quantize(16), "BMP")
    yield "one_bit.bmp", encoded(rgb.convert("1"), "BMP")


SCALED = {"rgb.png": [(3, 4), (7, 9), (14, 5), (9, 13), (1, 1)], "420.jpg": [(6, 7)]}

for old in HERE.glob("*"):
    if old.suffix in (".png", ".jpg", ".bmp"):
        old.unlink()
for name, data in [*pngs(), *jpegs(), *bitmaps()]:
    (HERE / name).write_bytes(data)
    picture = Image.open(io.BytesIO(data))
    expected[name] = np.dstack([np.array(picture.convert("RGB")), np.array(picture.convert("L"))])
    if picture.getexif().get(0x0112, 1) != 1:
        expected[f"{name}:turned"] = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    for h, w in SCALED.get(name, []):
        rgb = picture.convert("RGB")
        expected[f"{name}:pil:{h}x{w}"] = np.array(rgb.resize((w, h), Image.Resampling.BILINEAR))
        expected[f"{name}:tf:{h}x{w}"] = tf.image.resize(np.array(rgb), (h, w)).numpy()
np.savez_compressed(HERE / "expected.npz", **expected)
