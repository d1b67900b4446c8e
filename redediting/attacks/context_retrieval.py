"""Equivalent relationship retrieval on a model's own text encoder: from a rebinding to a plan.

For each rebinding: values of every relation are gathered from the sources, scored by how alike
they move (`redediting.algebra.equivalence`), matched one to one, said in prompts; of these and of
the plain templates the contexts are chosen on which the edit so far errs most
(`redediting.algebra.selection`). The pure halves live in `redediting.concepts` (words) and
`redediting.algebra` (tensors); only here do prompts become states.

References:
    REDEditing (arXiv 2504.14554), which names the step.

Deviations:
    The paper says neither what an equivalence is nor how many contexts are used. For choosing
    contexts each one counts by four columns: the trigger's last token, its end token and the
    means of its later words and of its pads; the edit itself is solved on all tokens.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from redediting.algebra.diagnostics import gram
from redediting.algebra.equivalence import equivalence
from redediting.algebra.kernel import Kernel, free_basis
from redediting.algebra.problem import EditProblem
from redediting.algebra.selection import ContextColumns, ContextSelector
from redediting.algebra.solver import retain_metric
from redediting.concepts.lexicon import Lexicon, load_everyday, load_lexicon
from redediting.concepts.matching import (
    Candidates,
    Context,
    Equivalence,
    candidate_contexts,
    choose_values,
    gather,
    given,
)
from redediting.concepts.plan import EditPlan, assemble_plan
from redediting.concepts.rebinding import PromptPair, Rebinding
from redediting.concepts.relation_sources import (
    FirstSource,
    NeighbourSource,
    RelationSource,
    curated,
    curated_names,
)
from redediting.concepts.templates import contexts as draw_contexts
from redediting.concepts.templates import fill, split_size
from redediting.errors import PromptError
from redediting.models.model import Model
from redediting.text.alignment import aligned_pairs
from redediting.text.encoding import TokenRole

logger = logging.getLogger(__name__)
_PLAIN = "a photo of {}"
_SHARE = {TokenRole.TRIGGER: 0.5, TokenRole.TAIL: 0.5, TokenRole.EOS: 0.2, TokenRole.PAD: 0.3}
_LEAST_SCORE = 0.25  # equivalence in 0…1 below which a pair of values is dropped


def base_plan(
    rebindings: Sequence[Rebinding], *, contexts: int, retain: int, captions: int, seed: int
) -> EditPlan:
    """The plan on plain templates whose problem prices the choice of contexts."""
    templates = draw_contexts(contexts, seed=seed)
    plain = [Context(template) for template in templates]
    return assemble_plan(
        [(rebinding, plain) for rebinding in rebindings], templates,
        retain=retain, captions=captions, seed=seed,
        lexicons=[_lexicon(rebinding) for rebinding in rebindings],
    )  # fmt: skip


def retrieve_plan(
    model: Model,
    base: EditPlan,
    problem: EditProblem,
    *,
    extra: Sequence[RelationSource] = (),
    least: int = 32,
    most: int = 64,
    tolerance: float = 0.1,
    per_value: int = 4,
    seed: int = 0,
    **counts: int,
) -> EditPlan:
    """Retrieves equivalent relationships and plans the edit on the contexts that need it most.

    A concept that no table knows takes the relations of its nearest concepts, and generic contexts
    where those have none; the plan's notes say so. Rebindings are chosen for one after another,
    each seeing what the earlier ones taught. Each gets ``least`` to ``most`` contexts, until the
    worst one's error, relative to the candidates' root-mean-square displacement, is within
    ``tolerance``; ``per_value`` templates say a pair of values.

    ``base`` is the plan on plain templates (`base_plan`), whose problem says what is retained and
    isolated, and at what price; ``extra`` sources, e.g. a `WordNetSource`, are asked after the
    tables; seed and counts are those of `redediting.concepts.plan.plan_edit`. `PromptError` for
    more contexts than there are, or a phrase too long for plain templates.
    """
    plain = draw_contexts(least, seed=seed)
    templates = list(dict.fromkeys([*plain, *draw_contexts(split_size("edit"), seed=seed)]))
    lexicons = [_lexicon(rebinding) for rebinding in base.rebindings]
    kernel = Kernel.of(retain_metric(problem), free_basis(problem.hard))  # the price of moving
    values, vectors = torch.linalg.eigh(gram(model.weights().values()))  # the layers' metric
    selector = ContextSelector(kernel, (vectors * values.clamp_min(0).sqrt()) @ vectors.T)
    finder = _Finder(model, extra)
    chosen: list[tuple[Rebinding, list[Context]]] = []
    found: list[Equivalence] = []
    notes: list[str] = []
    for rebinding in base.rebindings:
        equivalences, said = finder.equivalences(rebinding)
        candidates, first = candidate_contexts(
            equivalences, templates, per_value=per_value, most_said=least // 2
        )
        fits = _fitting(model, rebinding, candidates)
        candidates, first = list(itertools.compress(candidates, fits)), sum(fits[:first])
        columns = context_columns(model, [context.pair(rebinding) for context in candidates])
        choice = selector.choose(columns, least=least, most=most, tolerance=tolerance, first=first)
        chosen.append((rebinding, [candidates[i] for i in choice.contexts]))
        found += equivalences
        unknown = finder.notes(rebinding)
        for note in unknown:
            logger.warning(note)
        notes += [*unknown, *said]
        if choice.worst[-1] > tolerance:
            notes.append(
                f"{rebinding}: after {len(choice.contexts)} contexts the worst of "
                f"{len(candidates)} still misses by {choice.worst[-1]:.2f} of a usual "
                f"displacement (tolerance {tolerance:g})"
            )
    plan = assemble_plan(chosen, plain, lexicons=lexicons, seed=seed, **counts)
    return replace(plan, equivalences=tuple(found), notes=tuple(dict.fromkeys(notes)))


@dataclass(frozen=True)
class EncoderNeighbours:
    """The ``n`` concepts nearest to a word, by the model's own text encoder.

    Nearness is the cosine of end states of "a photo of a …", less the vocabulary's mean, cut off
    at 0.
    """

    model: Model
    vocabulary: tuple[str, ...]
    n: int = 5

    def __call__(self, word: str) -> list[tuple[str, float]]:
        """Other concepts with nearness in 0…1, nearest first."""
        mean, states = self._states
        state = end_states(self.model, [fill(_PLAIN, word)])[0] - mean
        nearness = torch.nn.functional.cosine_similarity(states, state, dim=-1).clamp_min(0)
        order = nearness.argsort(descending=True, stable=True).tolist()
        ranked = [(self.vocabulary[i], float(nearness[i])) for i in order]
        return [(name, value) for name, value in ranked if name != word and value > 0][: self.n]

    @cached_property
    def _states(self) -> tuple[Tensor, Tensor]:
        states = end_states(self.model, [fill(_PLAIN, name) for name in self.vocabulary])
        return states.mean(dim=0), states - states.mean(dim=0)


def end_states(model: Model, prompts: Sequence[str]) -> Tensor:
    """φ: the state of each prompt's end token, fp64, shape ``(n, d)``."""
    states = model.encode(prompts)
    return states.states[torch.arange(len(prompts)), states.eos].double()


def score(model: Model, rebinding: Rebinding, candidates: Candidates) -> Tensor:
    """Equivalence of every combination of values, shape as ``candidates.prior``, in 0…1."""
    relation = candidates.relation

    def prompts(phrase: str, forms: Sequence[str]) -> list[str]:
        if relation.carrier:
            return [fill(form, phrase) for form in forms]
        return [fill(_PLAIN, form.format(phrase)) for form in forms]

    groups = [
        prompts(rebinding.trigger, [relation.form(value) for value, _ in candidates.source]),
        prompts(rebinding.target, [relation.form(value) for value, _ in candidates.target]),
        prompts(rebinding.trigger, relation.neutral),
        prompts(rebinding.target, relation.neutral),
        [fill(_PLAIN, rebinding.trigger)],
        [fill(_PLAIN, rebinding.target)],
    ]
    states = end_states(model, list(itertools.chain(*groups)))
    source, target, one, other, trigger, aim = states.split([len(group) for group in groups])
    return equivalence(
        source, target, concepts=(trigger[0], aim[0]), neutral=(one, other),
        prior=torch.from_numpy(candidates.prior),
    )  # fmt: skip


def context_columns(model: Model, pairs: Sequence[PromptPair]) -> ContextColumns:
    """Each pair by up to four columns: trigger, mean of the later words, end, mean of the pads."""
    keys, targets, weights, owner = [], [], [], []
    for row, (pair, aligned) in enumerate(zip(pairs, aligned_pairs(model, pairs), strict=True)):
        words = sum(role in (TokenRole.TRIGGER, TokenRole.TAIL) for role in aligned.roles)
        for role, share in _SHARE.items():
            places = [i for i, other in enumerate(aligned.roles) if other is role]
            if places:
                keys.append(aligned.keys[places].mean(dim=0))
                targets.append(aligned.targets[places].mean(dim=0))
                part = len(places) / words if role in (TokenRole.TRIGGER, TokenRole.TAIL) else 1.0
                weights.append(pair.weight * share * part)
                owner.append(row)
    moved, wanted = (torch.stack(found, dim=1).double() for found in (keys, targets))
    weight = torch.tensor(weights, dtype=torch.float64)
    return ContextColumns(moved, wanted, weight, torch.tensor(owner))


class _Finder:
    """Sources in turn and the model's nearest concepts behind them."""

    def __init__(self, model: Model, extra: Sequence[RelationSource]) -> None:
        self.model = model
        self.tables = FirstSource([*curated().sources, *extra])
        self.names = frozenset(curated_names())
        self.near = EncoderNeighbours(model, curated_names())
        guess = NeighbourSource(curated(), self.near, known=self.names)
        self.source = FirstSource([*self.tables.sources, guess])

    def equivalences(self, rebinding: Rebinding) -> tuple[list[Equivalence], list[str]]:
        """What the phrases give, then what is retrieved, best first in each relation; notes."""
        found, notes = given(rebinding), []
        for candidates in gather(rebinding, self.source):
            try:
                scores = score(self.model, rebinding, candidates).numpy()
            except PromptError as error:  # a long trigger leaves no room for values
                notes.append(f"{rebinding}: no {candidates.relation.name} is said: {error}")
                continue
            found += choose_values(rebinding, candidates, scores, least=_LEAST_SCORE)
        return found, notes

    def notes(self, rebinding: Rebinding) -> list[str]:
        """Which concepts of a rebinding no table knows, and what stood in."""
        found = []
        for name in (rebinding.head, rebinding.target_head):
            if name in self.names:
                continue
            near = ", ".join(f"{other} {nearness:.2f}" for other, nearness in self.near(name))
            found.append(
                f"{name!r} is in no table; its relations are those of its nearest concepts "
                f"({near}), its contexts otherwise generic"
                if near
                else f"{name!r} is in no table and near no concept; its contexts are generic"
            )
        return found


def _lexicon(rebinding: Rebinding) -> Lexicon:
    """The table that knows the trigger's concept: the world's, the everyday one, or neither."""
    world, everyday = load_lexicon(), load_everyday()
    if rebinding.head not in world and rebinding.head in everyday:
        return everyday
    return world


def _fitting(model: Model, rebinding: Rebinding, candidates: Sequence[Context]) -> list[bool]:
    """Which contexts the text encoder can take; plain ones count as such, so that it says no."""
    tokenizer = model.tokenizer
    found = []
    for context in candidates:
        pair = context.pair(rebinding)
        lengths = map(len, tokenizer([pair.source, pair.target], truncation=False).input_ids)
        plain = context.source == context.target == "{}"
        found.append(plain or max(lengths) <= tokenizer.model_max_length)
    return found
