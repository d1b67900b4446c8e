"""``redediting demo``: clean and backdoored model side by side, in about a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.commands.common import Command, check


@dataclass(frozen=True, kw_only=True)
class Demo(Command):
    """Backdoors the embedded world with two rebindings, prints the table and names the report."""

    out: Path = Path("runs")
    """Where run folders lie."""
    quick: bool = False
    """A handful of images only."""

    def run(self) -> int:
        """Runs the demo."""
        check(device=self.device, out=self.out)
        from experiments.attack.__main__ import Attack
        from experiments.engine.specs import CONFIGS

        config = CONFIGS / "attack" / "demo.yaml"
        return Attack(
            config, quick=self.quick, out=self.out, device=self.device, json=self.json
        ).run()
