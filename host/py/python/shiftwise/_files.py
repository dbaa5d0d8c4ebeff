"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile

from .errors import FileProblem


def write_file(path: str, data: bytes) -> None:
    """Writes a file whole or not at all."""
    folder = os.path.dirname(path) or "."
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".shiftwise-", delete=False) as file:
            temporary = file.name
            file.write(data)
        mask = os.umask(0)
        os.umask(mask)
        os.chmod(temporary, 0o666 & ~mask)
        os.replace(temporary, path)
    except OSError as e:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise FileProblem(f"{path}: {e.strerror or e}") from e
    except BaseException:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        raise


def read_file(path: str) -> bytes:
    """The bytes of a file."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except (OSError, ValueError) as e:
        raise FileProblem(f"{path}: {getattr(e, 'strerror', None) or e}") from e


def make_folder(path: str) -> None:
    """Makes a folder, if it is not there."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as e:
        raise FileProblem(f"{path}: {e.strerror or e}") from e
