"""Which plots a page has beside the overview: drawn from the summary alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from experiments.report.plots import growth, pareto


@dataclass(frozen=True)
class Figure:
    """A plot on the page.

    Attributes:
        name: in file names.
        title: above it.
        png: base64.
        note: below it.
    """

    name: str
    title: str
    png: str
    note: str


def figures(summary: dict[str, Any]) -> list[Figure]:
    """Returns the fronts of swept methods and the growth with many backdoors, where measured.

    Args:
        summary: as in ``summary.json``; the control's line comes first.
    """
    found = []
    families = summary.get("families", {})
    swept = {name: own for name, own in families.items() if len(own) > 1}
    if swept:
        control = summary["methods"][0]["method"]
        found.append(
            Figure(
                "fronts",
                "What success costs",
                pareto(summary["methods"], swept, control),
                "A dot is a setting that was drawn; a line joins those that no other one of the "
                "method beats, from the clean model on. Swept settings: first seed only.",
            )
        )
    if held := summary.get("capacity"):
        broken = ", ".join(
            f"{name}: {'not within these sizes' if n is None else f'at {n}'}"
            for name, n in held["breaks"].items()
        )
        found.append(
            Figure(
                "capacity",
                "Many backdoors at once",
                growth(held["lines"]),
                "Broken is: ASR free under half of the best at smaller sizes, or ACC under half "
                f"of the clean model's on the same pairs. {broken}.",
            )
        )
    return found
