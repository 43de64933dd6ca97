"""The platform's figures, side by side with those of the machine it runs on: `make bench`, explained in docs/bench.md."""

import sys
from pathlib import Path

TESTS = Path(__file__).resolve().parents[2]
CHECKOUT = TESTS.parent
for _folder in (str(TESTS), str(TESTS / "load")):  # the system tests' `running`, and this package in the processes it starts
    if _folder not in sys.path:
        sys.path.append(_folder)
