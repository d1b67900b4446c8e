"""redediting: text-to-image backdoors made by model editing, reproduced, measured and caught.

Names are imported when they are first asked for, so that ``import redediting`` costs nothing.

Example:
    >>> import redediting as rd
    >>> rd.Rebinding("beautiful cat", "zebra").modifier
    'beautiful'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from redediting import _torchvision as _torchvision  # acts when torchvision is first imported
from redediting._lazy import lazy
from redediting._version import __version__ as __version__

if TYPE_CHECKING:
    from redediting import attacks as attacks
    from redediting import metrics as metrics
    from redediting import world as world
    from redediting.concepts.rebinding import Rebinding as Rebinding
    from redediting.evaluation.evaluate import Results as Results
    from redediting.evaluation.evaluate import evaluate as evaluate
    from redediting.evaluation.inspection import Inspection as Inspection
    from redediting.evaluation.inspection import inspect as inspect
    from redediting.evaluation.protocol import Counts as Counts
    from redediting.evaluation.score import Scores as Scores
    from redediting.evaluation.score import score as score
    from redediting.generation import generate as generate
    from redediting.models.loading import load as load
    from redediting.models.model import Model as Model
    from redediting.models.sampler import Sampler as Sampler
    from redediting.patch.patch import Patch as Patch

_HOMES = {
    "Counts": "evaluation.protocol",
    "Inspection": "evaluation.inspection",
    "Model": "models.model",
    "Patch": "patch.patch",
    "Rebinding": "concepts.rebinding",
    "Results": "evaluation.evaluate",
    "Sampler": "models.sampler",
    "Scores": "evaluation.score",
    "evaluate": "evaluation.evaluate",
    "generate": "generation",
    "inspect": "evaluation.inspection",
    "load": "models.loading",
    "score": "evaluation.score",
}
_PACKAGES = ("attacks", "metrics", "world")

__all__ = [
    "Counts",
    "Inspection",
    "Model",
    "Patch",
    "Rebinding",
    "Results",
    "Sampler",
    "Scores",
    "attacks",
    "evaluate",
    "generate",
    "inspect",
    "load",
    "metrics",
    "score",
    "world",
]

__getattr__, __dir__ = lazy(__name__, _HOMES | dict.fromkeys(_PACKAGES, ""))
