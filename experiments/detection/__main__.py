"""``python -m experiments.detection CONFIG [--quick]``."""

import sys

from experiments.detection.measure import main

if __name__ == "__main__":
    sys.exit(main())
