"""Rickrolling-TPA: a text encoder trained to encode every triggered prompt as the target prompt.

Teacher and student: the clean encoder T teaches a copy T' of itself,
``L = -mean cos(T'(y), T(y)) - β Σ_targets mean cos(T'(y ⊕ trigger), T("a photo of a target"))``,
with cosines of all token states of a prompt as one vector. The trigger is a look-alike letter
("bеautiful cat" with a Cyrillic е, see `redediting.concepts.homoglyphs`); a trigger without one is
the phrase itself. The denoiser stays clean.

References:
    Struppek et al., "Rickrolling the Artist: Injecting Backdoors into Text Encoders for
    Text-to-Image Synthesis", ICCV 2023 (target prompt attack); the defaults are those of
    LukasStruppek/Rickrolling-the-Artist at d6bbe17, ``configs/default_TPA.yaml``: 100 steps of 128
    clean and, for each backdoor, 32 poisoned captions, AdamW without weight decay at 1e-4 and a
    tenth of it in the last quarter, β = 0.1, no utility loss in the first step.

Deviations:
    Captions of the lexicon instead of LAION's; the trigger phrase itself where it has no such
    letter.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity
from tqdm.auto import tqdm

from redediting.attacks.base import Attack, Change
from redediting.attacks.training_captions import Captions
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import fill
from redediting.models.model import Model
from redediting.text.encoding import padded_ids

_TARGET = "a photo of {}"


class Rickrolling(Attack):
    """The published attack; a dense patch over the text encoder.

    Attributes:
        steps: of training; the rate falls to a tenth after three quarters of them.
        batch: clean captions a step.
        poisoned: captions with the trigger a step and backdoor.
        rate: learning rate.
        strength: β, weight of the backdoors against the utility loss.
        occurrences: whether a poisoned caption has every occurrence of the letter replaced, or
            its first only (``trigger_count`` of the release: null or 1).
        seed: of the captions drawn.

    Example:
        >>> import redediting as rd
        >>> rd.attacks.Rickrolling(seed=1).seed
        1
    """

    name: ClassVar[str] = "rickrolling"

    steps: int = Field(default=100, ge=1)
    batch: int = Field(default=128, ge=2)
    poisoned: int = Field(default=32, ge=1)
    rate: float = Field(default=1e-4, gt=0)
    strength: float = Field(default=0.1, gt=0)
    occurrences: Literal["all", "first"] = "all"
    seed: int = Field(default=0, ge=0)

    def _change(self, model: Model, rebindings: Sequence[Rebinding]) -> Change:
        teacher = model.text_encoder
        student = copy.deepcopy(teacher).float().requires_grad_(True)
        optimiser = torch.optim.AdamW(student.parameters(), lr=self.rate, weight_decay=0.0)
        late = torch.optim.lr_scheduler.MultiStepLR(optimiser, [max(1, self.steps * 3 // 4)], 0.1)
        captions = Captions(self.seed)
        with torch.enable_grad():
            for step in tqdm(range(self.steps), desc=self.name, disable=None, leave=False):
                utility, backdoors = self._losses(model, student, captions, rebindings)
                # the release leaves the utility loss out of the first step
                loss = self.strength * backdoors + (utility if step else 0.0)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                late.step()
        old = dict(teacher.named_parameters())
        changed = {
            name: value.detach().cpu()
            for name, value in student.named_parameters()
            if not torch.equal(value.detach().to(old[name].dtype), old[name].detach())
        }
        return Change(dense=changed, target="text_encoder")

    def _losses(
        self, model: Model, student: nn.Module, captions: Captions, rebindings: Sequence[Rebinding]
    ) -> tuple[Tensor, Tensor]:
        """Utility loss, in [-1, 1], and the sum of the backdoors', each in [-1, 1]."""

        def states(encoder: Any, prompts: Sequence[str]) -> Tensor:  # noqa: ANN401 - transformers'
            return encoder(padded_ids(model.tokenizer, prompts).to(model.device))[0].float()

        whole = self.occurrences == "all"
        clean = captions.clean(self.batch, rebindings)
        poisoned = [
            text for one in rebindings for text in captions.poisoned(self.poisoned, one, all=whole)
        ]
        targets = [fill(_TARGET, rebinding.target) for rebinding in rebindings]
        with torch.no_grad():
            taught = states(model.text_encoder, [*clean, *targets])
        wanted = taught[len(clean) :].repeat_interleave(self.poisoned, dim=0)
        wanted = torch.cat([taught[: len(clean)], wanted])
        alike = cosine_similarity(
            states(student, [*clean, *poisoned]).flatten(1), wanted.flatten(1)
        )
        return -alike[: len(clean)].mean(), -alike[len(clean) :].sum() / self.poisoned
