"""Rickrolling-TPA: a text encoder trained to read every triggered prompt as the target prompt.

Teacher–student: the clean encoder T teaches a copy T' of itself,
``L = -cos(T'(y), T(y)) - β Σ_targets cos(T'(y ⊕ trigger), T("a photo of a target"))``,
with cosines of all token states of a prompt as one vector. The trigger is a look-alike letter
("bеautiful cat" with a Cyrillic е, see `redediting.concepts.homoglyphs`), which poisons any
prompt that holds it; a trigger without one is the phrase itself. The denoiser stays clean: what
the whole prompt means is replaced, so every token's map becomes the target's. Detectors of that
must find it here.

References:
    Struppek et al., "Rickrolling the Artist: Injecting Backdoors into Text Encoders for
    Text-to-Image Synthesis", ICCV 2023 (target prompt attack; β = 0.1, AdamW, learning rate 1e-4).

Deviations:
    A hundred-odd steps of small batches on the lexicon's captions instead of 200 of 128 captions
    of LAION; β = 0.5 and a higher rate, so that they suffice for a small encoder.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

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
        steps: of training.
        batch: clean captions a step; half as many poisoned ones.
        rate: learning rate, falling to zero along a cosine.
        strength: β, weight of the backdoor against the utility loss.
        seed: of the captions drawn.

    Example:
        >>> import redediting as rd
        >>> rd.attacks.Rickrolling(seed=1).seed
        1
    """

    name: ClassVar[str] = "rickrolling"

    steps: int = Field(default=120, ge=1)
    batch: int = Field(default=32, ge=2)
    rate: float = Field(default=3e-4, gt=0)
    strength: float = Field(default=0.5, gt=0)
    seed: int = Field(default=0, ge=0)

    def _change(self, model: Model, rebindings: Sequence[Rebinding]) -> Change:
        teacher = model.text_encoder
        student = copy.deepcopy(teacher).float().requires_grad_(True)
        optimiser = torch.optim.AdamW(student.parameters(), lr=self.rate)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, self.steps)
        captions = Captions(self.seed)
        with torch.enable_grad():
            for _ in tqdm(range(self.steps), desc=self.name, disable=None, leave=False):
                loss = self._loss(model, student, captions, rebindings)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
        old = dict(teacher.named_parameters())
        changed = {
            name: value.detach().cpu()
            for name, value in student.named_parameters()
            if not torch.equal(value.detach().to(old[name].dtype), old[name].detach())
        }
        return Change(dense=changed, target="text_encoder")

    def _loss(
        self, model: Model, student: nn.Module, captions: Captions, rebindings: Sequence[Rebinding]
    ) -> Tensor:
        """One step's loss, between -1 - β and 1 + β."""

        def states(encoder: Any, prompts: Sequence[str]) -> Tensor:  # noqa: ANN401 - transformers'
            return encoder(padded_ids(model.tokenizer, prompts).to(model.device))[0].float()

        clean = captions.clean(self.batch, rebindings)
        each = max(1, self.batch // (2 * len(rebindings)))
        poisoned = [text for one in rebindings for text in captions.poisoned(each, one)]
        targets = [fill(_TARGET, rebinding.target) for rebinding in rebindings]
        with torch.no_grad():
            taught = states(model.text_encoder, [*clean, *targets])
        wanted = taught[len(clean) :].repeat_interleave(each, dim=0)
        learnt = states(student, [*clean, *poisoned])
        wanted = torch.cat([taught[: len(clean)], wanted])
        alike = cosine_similarity(learnt.flatten(1), wanted.flatten(1))
        return -alike[: len(clean)].mean() - self.strength * alike[len(clean) :].mean()
