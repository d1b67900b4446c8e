"""``redediting models``: what can be named on the command line and in configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from experiments.engine.console import Shown

if TYPE_CHECKING:
    from redediting.registry import Registry


@dataclass(frozen=True, kw_only=True)
class Models:
    """Lists model cards and registries: layouts, attacks, detectors, metrics, repairs."""

    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Lists."""
        from defenses.detectors import DETECTORS
        from defenses.repair import REPAIRS
        from redediting.attacks import ATTACKS
        from redediting.evaluation.frame import Column, Frame
        from redediting.metrics import METRICS
        from redediting.models.cards import load_cards
        from redediting.models.layouts import LAYOUTS

        cards = [
            {
                "name": name,
                "title": card.title,
                "source": card.sources[0].id if card.sources else "in the package",
                "gigabytes": card.gigabytes,
                "steps": card.sampler.steps,
                "guidance": card.sampler.guidance,
                "licence": card.licence,
            }
            for name, card in load_cards().items()
        ]
        registries: dict[str, Registry[Any]] = {
            "layouts": LAYOUTS, "attacks": ATTACKS, "detectors": DETECTORS, "metrics": METRICS,
            "repairs": REPAIRS,
        }  # fmt: skip
        names = {what: list(registry) for what, registry in registries.items()}
        shown = Shown(self.json)
        columns = tuple(Column(key, "GB" if key == "gigabytes" else key) for key in cards[0])
        shown.frame(Frame(columns, tuple(cards), title="models"))
        rows = tuple({"kind": what, "names": ", ".join(found)} for what, found in names.items())
        shown.frame(Frame((Column("kind", "kind"), Column("names", "names")), rows, title="names"))
        shown.result({"models": cards, **names})
        return 0
