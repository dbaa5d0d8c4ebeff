"""``python -m shiftwise`` is the program ``shiftwise``."""

import sys

from .program import main

sys.exit(main())
