"""`python -m diffalign <verb> ...`: the same door as the `diffalign` console script."""

from __future__ import annotations

import sys

from diffalign.commands import main

if __name__ == "__main__":
    sys.exit(main())
