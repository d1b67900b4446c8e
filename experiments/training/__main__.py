"""``python -m experiments.training``: see `experiments.training.recipe`."""

import sys

from experiments.training.recipe import main

if __name__ == "__main__":
    sys.exit(main())
