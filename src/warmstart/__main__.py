"""``python -m warmstart``: the command line, also under ``torchrun -m``."""

import sys

from warmstart.cli import main

if __name__ == "__main__":
    sys.exit(main())
