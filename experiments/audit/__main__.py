"""``python -m experiments.audit CONFIG [--quick]``."""

import sys

from experiments.audit.measure import main

if __name__ == "__main__":
    sys.exit(main())
