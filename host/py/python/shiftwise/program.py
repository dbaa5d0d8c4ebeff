"""The program ``shiftwise`` that is in the package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any, Dict, List, Optional, Sequence

from . import _native
from .errors import RunFailed, of


def binary() -> List[str]:
    """How the program ``shiftwise`` is started: the file that SHIFTWISE_BIN names, else the one in this package."""
    given = os.environ.get("SHIFTWISE_BIN")
    if given and os.path.exists(given):
        # It is started in other folders, too.
        given = os.path.abspath(given)
    return [given] if given else [sys.executable, "-m", "shiftwise"]


def command(*arguments: str, folder: Optional[str] = None) -> Dict[str, Any]:
    """Runs the program with arguments, such as ``command("tune", "model.h5", ...)``; returns its JSON.

    ``folder``: where it runs, if not here.
    """
    words = [*binary(), *map(str, arguments), "--json"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
    try:
        answer = json.loads(done.stdout)
    except ValueError as e:
        raise RunFailed(f"shiftwise {' '.join(words[-3:-1])}: {done.stderr.strip() or done.returncode}") from e
    if done.returncode == 2:
        raise of(answer["error"]["code"], answer["error"]["message"])
    return answer  # type: ignore[no-any-return]


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The program itself, in this process; returns its exit code."""
    import signal

    # An interrupt ends the program as it does elsewhere, and not when Python is asked next.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _native.main(["shiftwise", *(sys.argv[1:] if arguments is None else arguments)])
