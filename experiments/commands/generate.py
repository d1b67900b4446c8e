"""``redediting generate``: draw prompts with the clean model or with a patch applied."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from experiments.commands.common import Command, SamplerOptions, check
from experiments.engine.console import Shown
from redediting.errors import PromptError

INDEX = "images.json"


@dataclass(frozen=True, kw_only=True)
class Generate(Command, SamplerOptions):
    """Draws images; the same seeds with and without --edit give the same noise."""

    prompt: tuple[str, ...]
    """One or more prompts."""
    out: Path
    """Folder to write; earlier images of this command there are replaced."""
    model: str = "world"
    """Card, model folder or hub id."""
    edit: Path | None = None
    """Patch folder to apply."""
    n: int = 4
    """Images a prompt."""
    seed: int = 0
    """Seed of the first image; the next ones follow."""

    def run(self) -> int:
        """Draws and saves."""
        if self.n < 1 or not self.prompt or self.seed < 0:
            raise PromptError(
                f"expected prompts, --n >= 1 and --seed >= 0, got {len(self.prompt)} prompts, "
                f"n {self.n} and seed {self.seed}; mend the flags"
            )
        check(model=self.model, device=self.device, edit=self.edit, out=self.out)
        sampler = self.sampler(self.model)
        from redediting.generation import Job, draw
        from redediting.io import atomic_folder
        from redediting.patch.patch import Patch

        patch = Patch.load(self.edit) if self.edit else None
        model = self.load(self.model)
        jobs = [Job(p, self.seed + i) for p in self.prompt for i in range(self.n)]
        shown = Shown(self.json)
        index = []
        with (
            patch.apply(model) if patch else nullcontext(),
            atomic_folder(self.out, marker=INDEX) as temporary,
        ):
            drawn = draw(model, jobs, sampler=sampler, progress=shown.progress)
            for number, (job, image) in enumerate(drawn):
                name = f"{number // self.n:03d}-{job.seed}.png"
                image.save(temporary / name)
                index.append({"file": name, "prompt": job.prompt, "seed": job.seed})
            record = {
                "model": self.model,
                "edit": self.edit.as_posix() if self.edit else None,
                "sampler": sampler.model_dump(),
                "images": index,
            }
            (temporary / INDEX).write_text(json.dumps(record, indent=1) + "\n", "utf-8")
        shown.line(f"{len(index)} images in {self.out}")
        shown.result({"out": self.out.as_posix(), **record})
        return 0
