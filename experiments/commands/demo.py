"""``redediting demo``: clean and backdoored model side by side, in about a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Demo:
    """Backdoors the embedded world with two rebindings, prints the table and names the report."""

    out: Path = Path("runs")
    """Where run folders lie."""
    device: str = "auto"
    """auto, cpu or cuda."""
    quick: bool = False
    """A handful of images only."""
    json: bool = False
    """Print one JSON object as the last line."""

    def run(self) -> int:
        """Runs the demo."""
        from experiments.attack.__main__ import Attack
        from experiments.engine.console import check_device
        from redediting.io import check_writable

        check_device(self.device)
        check_writable(self.out)
        from experiments.engine.specs import CONFIGS

        config = CONFIGS / "attack" / "demo.yaml"
        return Attack(
            config, quick=self.quick, out=self.out, device=self.device, json=self.json
        ).run()
