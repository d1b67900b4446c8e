"""``python -m experiments.attack CONFIG [--quick]``."""

import sys

from experiments.attack.measure import main

if __name__ == "__main__":
    sys.exit(main())
