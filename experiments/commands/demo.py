"""``redediting demo``: clean and backdoored model side by side, in about a minute."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.attack.measure import attack
from experiments.engine.specs import CONFIGS, AttackConfig, load_config


@dataclass(frozen=True)
class Demo:
    """Backdoors the embedded world with two pairs, prints the table and names the report."""

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
        config = load_config(CONFIGS / "attack" / "demo.yaml", AttackConfig)
        attack(config, out=self.out, device=self.device, quick=self.quick, as_json=self.json)
        return 0
