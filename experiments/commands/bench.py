"""``redediting bench``: how fast the edit and the generator are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from experiments.commands.common import Command, check
from experiments.engine.console import Shown, pick_device
from redediting.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Bench(Command):
    """Times the edit (edit), many backdoors (growth) or drawing (generation); writes OUT/bench."""

    what: tyro.conf.Positional[Literal["edit", "growth", "generation"]]
    """edit: one backdoor beside other ways; growth: 1 to 1000; generation: beside a plain loop."""
    shape: Literal["sd15", "sdxl"] = "sd15"
    """Text projections of which model, at full size with random weights (edit, growth)."""
    model: str = "world"
    """Who draws (generation)."""
    repeats: int = 5
    """Turns; medians are taken."""
    loop_repeats: int | None = None
    """Turns of the slow published loop (edit); all when not given. On SDXL one takes minutes."""
    images: int = 48
    """Images a turn (generation)."""
    quick: bool = False
    """One turn, and at most ten backdoors: shows that it works, figures are not to be quoted."""
    out: Path = Path("runs")
    """Where the folder bench/ lies."""

    def run(self) -> int:
        """Measures and shows."""
        repeats = 1 if self.quick else self.repeats
        loops = repeats if self.loop_repeats is None else self.loop_repeats
        if min(repeats, loops, self.images) < 1:
            raise ConfigError(
                f"expected --repeats, --loop-repeats and --images >= 1, got {repeats}, {loops} "
                f"and {self.images}; mend the flags"
            )
        check(model=self.model, device=self.device, out=self.out)
        from experiments.bench import report
        from experiments.bench.edits import BACKDOORS, bench_edit, bench_growth
        from experiments.bench.images import bench_generation
        from experiments.bench.shapes import projection_tensors
        from redediting.evaluation.sources import source_digest
        from redediting.evaluation.store import provenance
        from redediting.io import replace_bytes, replace_json, writing
        from redediting.models.cards import default_sampler

        device = pick_device(self.device)
        shown = Shown(self.json)
        name = self.what if self.what == "generation" else f"{self.what}-{self.shape}"
        folder = self.out / "bench" / name
        base = ""
        if self.what == "edit":
            weights = projection_tensors(self.shape, device=device)
            figures, details = bench_edit(self.shape, weights, repeats=repeats, loop_repeats=loops)
        elif self.what == "growth":
            backdoors = BACKDOORS[:2] if self.quick else BACKDOORS
            weights = projection_tensors(self.shape, device=device)
            figures, details = bench_growth(self.shape, weights, backdoors=backdoors)
        else:
            model = self.load(self.model)
            base = model.fingerprint()
            figures, details = bench_generation(
                model, default_sampler(self.model), images=self.images, repeats=repeats
            )
        code = source_digest(["experiments.bench.edits", "experiments.bench.images"])
        made = provenance(device, base, code)
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        replace_bytes(folder / "bench.png", report.plot(self.what, figures, details))
        quotable = repeats >= report.LEAST_REPEATS and not self.quick
        found = figures | {"details": details, "provenance": made, "quotable": quotable}
        replace_json(folder / "bench.json", found)
        if self.what == "edit":
            shown.frame(report.edit_table([found]))
            shown.frame(report.targets_table(figures))
        else:
            line = report.growth_line if self.what == "growth" else report.generation_line
            shown.line(line(found))
        shown.line(f"figures and plot: {folder}")
        shown.result(figures)
        return 0
