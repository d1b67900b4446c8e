"""A user's first import may be any of the packages."""

from __future__ import annotations

import subprocess
import sys


def test_the_defences_can_be_imported_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import defenses.repair"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
