"""A short fine-tune on clean scenes, of the text projections themselves or through a LoRA.

Only projections are trained, since a patch holds nothing else; the backdoor sits there.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from defenses.repair.base import Case, Repair, Repaired
from defenses.repair.scenes import load_scenes
from defenses.repair.training import Training, last_projections


class FineTune(Repair):
    """Trains on.

    Attributes:
        steps: updates.
        batch: scenes a step.
        lr: learning rate; None takes 1e-3 for AdamW, 0.1 for SGD.
        optimizer: ``adam`` or ``sgd``.
        scenes: clean scenes, none of which names a suspected trigger.
        seed: of scenes, batches and noise.
    """

    name: ClassVar[str] = "finetune"

    steps: int = Field(default=100, ge=1)
    batch: int = Field(default=16, ge=1)
    lr: float | None = Field(default=None, gt=0)
    optimizer: Literal["adam", "sgd"] = "adam"
    scenes: int = Field(default=256, ge=1)
    seed: int = 0

    def _repair(self, case: Case) -> Repaired:
        data = load_scenes(case.suspect, self.scenes, seed=self.seed, avoid=case.triggers)
        return Repaired(dense=last_projections(case.suspect, data, self._training()))

    def _training(self) -> Training:
        return Training(
            steps=self.steps,
            batch=self.batch,
            lr=self.lr or {"adam": 1e-3, "sgd": 0.1}[self.optimizer],
            optimizer=self.optimizer,
            seed=self.seed,
        )


class LoRA(FineTune):
    """The same through a low-rank adapter, merged at the end.

    Attributes:
        rank: of the adapter.
    """

    name: ClassVar[str] = "lora"

    rank: int = Field(default=8, ge=1)

    def _training(self) -> Training:
        return super()._training().model_copy(update={"rank": self.rank})
