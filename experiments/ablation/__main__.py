"""``python -m experiments.ablation CONFIG [--quick]``."""

import sys

from experiments.ablation.measure import main

if __name__ == "__main__":
    sys.exit(main())
