"""Defences against edited text-to-image models.

``detectors``: one file a detector, a score per prompt and its cost; ``attention``: the one
recorder that serves them; ``localisation`` and ``perturbation``: where a trigger stands, and what
rewording leaves of it; ``audit``: forensics from the weights alone (shared-factor test, trigger
recovery); ``repair``: reversal and mitigation, each of which returns a
:class:`redediting.patch.patch.Patch`.

Arrows run one way: ``defenses`` may import ``redediting`` and never ``experiments``.
"""

import redediting as redediting  # first of all: makes torchvision importable beside a CPU torch
