"""``python -m shiftwise`` is the program ``shiftwise``."""

import sys

from .commands import main

sys.exit(main())
