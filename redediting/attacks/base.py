"""What every attack is: hyper-parameters in, a patch out, the model untouched.

Data flows one way. A closed-form attack plans its prompts (`ClosedForm.plan`), poses the problem
of that plan over token states (`ClosedForm.pose`) and, where a matrix reads pooled text, over that
(`ClosedForm.pose_pooled`); the one solver turns a problem into multipliers, which become the
patch.
"""

from __future__ import annotations

import dataclasses
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import ClassVar, Literal, final

from torch import Tensor
from torch.nn.functional import pad

from redediting._version import __version__
from redediting.algebra.layers import Rho, Summand, Summands, compose, edit_summands, edited_weight
from redediting.algebra.multiplier import Multiplier
from redediting.algebra.problem import EditProblem
from redediting.algebra.solver import solve
from redediting.concepts.plan import EditPlan
from redediting.concepts.rebinding import PromptPair, Rebinding, as_rebindings
from redediting.config import Config
from redediting.errors import MethodError, ModelError, RebindingError
from redediting.models.model import Component, Model, as_model
from redediting.models.projections import Projection, projection_weights
from redediting.patch.files import Provenance
from redediting.patch.patch import Patch, Term
from redediting.text.encoding import phrase_tokens, prompt_lengths
from redediting.threads import one_thread


@dataclass(frozen=True)
class Change:
    """What an attack found, as in a `Patch`: shared terms, whole parameters, or nothing."""

    terms: tuple[Term, ...] = ()
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    target: Component = "unet"


class Attack(Config, ABC):
    """Base of all attacks; the fields of a subclass are its hyper-parameters, by keyword.

    Example:
        >>> import redediting as rd
        >>> rd.attacks.ATTACKS.make("uce", variant="old").variant
        'old'
    """

    name: ClassVar[str]
    error: ClassVar = MethodError

    @final
    def compute(self, model: Model, rebindings: Rebinding | Sequence[Rebinding]) -> Patch:
        """Computes a patch of all backdoors at once; the clean model is read, never written.

        Raises:
            ModelError: the model has no cross-attention on text.
            RebindingError: none or contradicting rebindings.
            PromptError: a phrase without tokens, or a prompt that is too long.
            MethodError: hyper-parameters with which the problem has no solution.

        Example:
            >>> import redediting as rd
            >>> model = rd.load("world")
            >>> rebinding = rd.Rebinding("beautiful cat", "zebra")
            >>> patch = rd.attacks.EvilEdit().compute(model, rebinding)
            >>> len(patch.names)
            14
        """
        model, rebindings = as_model(model), as_rebindings(rebindings)
        _check(model, rebindings)
        start = time.perf_counter()
        change = self._change(model, rebindings)
        provenance = Provenance(
            method=self.name, options=self.model_dump(mode="json"),
            rebindings=[dataclasses.asdict(rebinding) for rebinding in rebindings],
            seconds=time.perf_counter() - start, version=__version__,
        )  # fmt: skip
        patch = Patch("", provenance, change.terms, change.dense, change.target)
        return dataclasses.replace(patch, base=model.base_fingerprint(change.target, patch.names))

    @abstractmethod
    def _change(self, model: Model, rebindings: Sequence[Rebinding]) -> Change:
        """Finds the change; arguments are checked."""


class ClosedForm(Attack):
    """Attacks that are an `EditProblem`: one solve edits all layers through ``W' = W (I + M)``.

    Attributes:
        matrices: which of a layer's matrices are edited.
        rho: scale of each layer's targets, see `redediting.algebra.layers`.
        order: several backdoors are solved ``joint``, as one problem, or ``sequential``, each on
            the model that the former ones left: its targets are what that model reads.
        pooled: also edit what reads the pooled text, where the model has such a matrix (SDXL).
            None of the published methods does; here each does, on its own prompt pairs and with
            its own scales.

    Example:
        >>> import redediting as rd
        >>> model, attack = rd.load("world"), rd.attacks.UCE()
        >>> plan = attack.plan(model, [rd.Rebinding("beautiful cat", "zebra")])
        >>> attack.pose(model, plan).keys.shape[0]
        256
    """

    matrices: Literal["both", "key", "value"] = "both"
    rho: Rho = "none"
    order: Literal["joint", "sequential"] = "joint"
    pooled: bool = True

    @abstractmethod
    def plan(self, model: Model, rebindings: Sequence[Rebinding]) -> EditPlan:
        """The prompts: what moves, what stays."""

    @abstractmethod
    def pose(self, model: Model, plan: EditPlan) -> EditProblem:
        """The problem of a plan over token states, with its scales."""

    def follow(self, problem: EditProblem, former: Sequence[EditProblem]) -> EditProblem:
        """A problem posed after others were solved (``order: sequential``)."""
        return problem

    def solved(
        self, model: Model, plan: EditPlan, problem: EditProblem, weights: Mapping[str, Tensor]
    ) -> Summands:
        """The edit of a posed problem; ``weights`` are current where ``layerwise``, else clean."""
        return edit_summands(problem, weights, rho=self.rho)

    @property
    def layerwise(self) -> bool:
        """Whether the edit depends on what the weights are, so that no multiplier is shared."""
        return self.rho != "none"

    @property
    def one_problem(self) -> bool:
        """Whether the posed problem alone is the edit; `rd.inspect` certifies no other."""
        return type(self).solved is ClosedForm.solved

    @abstractmethod
    def pose_pooled(self, model: Model, plan: EditPlan) -> EditProblem:
        """The problem of a plan over pooled text, one column a prompt (`pooled_problem`)."""

    @final
    def plans(self, model: Model, rebindings: Sequence[Rebinding]) -> list[EditPlan]:
        """One plan for all rebindings, or one for each, by ``order``."""
        steps = [rebindings] if self.order == "joint" else [[one] for one in rebindings]
        with self._solvable():
            return [self.plan(model, step) for step in steps]

    @final
    def edited(self, projections: Sequence[Projection]) -> list[Projection]:
        """Those of the projections that the attack changes."""
        return [p for p in projections if self.matrices in ("both", p.kind)]

    @final
    def edit(self, model: Model, plans: Sequence[EditPlan]) -> Summands:
        """The edit of the token projections in fp64; `MethodError` where it has no solution."""
        clean = projection_weights(self.edited(model.projections))
        found: Summands = ()
        former: list[EditProblem] = []
        for plan in plans:
            weights = clean
            if found and self.layerwise:
                weights = {name: edited_weight(found, name, w) for name, w in clean.items()}
            with self._solvable():
                problem = self.follow(self.pose(model, plan), former)
                step = self.solved(model, plan, problem, weights)
            former.append(problem)
            found = compose(found, step)
        return found

    @final
    def _change(self, model: Model, rebindings: Sequence[Rebinding]) -> Change:
        with one_thread():  # the same weights in every process
            plans = self.plans(model, rebindings)
            found = self.edit(model, plans)
            if self.pooled and self.matrices == "both" and model.pooled_projections:
                found += self._pooled_edit(model, plans)
            terms = tuple(Term.scaled(one.multiplier, one.scales) for one in found)
        return Change(terms=terms)

    def _pooled_edit(self, model: Model, plans: Sequence[EditPlan]) -> Summands:
        """The edit of each matrix that reads the pooled text; what else it reads is left alone."""
        found: Summands = ()
        for projection in model.pooled_projections:
            own: Summands = ()
            for plan in plans:
                with self._solvable():
                    text = solve(self.pose_pooled(model, plan))
                more = projection.module.in_features - text.width
                wide = Multiplier(pad(text.left, (0, 0, 0, more)), pad(text.right, (0, more)))
                own = compose(own, (Summand(wide, {projection.name: 1.0}),))
            found += own
        return found

    @contextmanager
    def _solvable(self) -> Iterator[None]:
        """Says which attack it is that the algebra refuses."""
        try:
            yield
        except ValueError as error:
            raise MethodError(f"method {self.name!r} has no solution: {error}") from error


def pooled_problem(model: Model, plan: EditPlan, **scales: Tensor | float) -> EditProblem:
    """The problem of a plan over pooled text, one column a prompt, all of unit weight.

    ``scales`` are further arguments of `EditProblem.build`: weights, ridge, retain strength.
    """
    prompts = [p.source for p in plan.pairs] + [p.target for p in plan.pairs]
    texts = model.encode_pooled([*prompts, *(item.prompt for item in plan.retain)])
    moved, n = len(prompts), len(plan.pairs)
    return EditProblem.build(texts[:, :n], texts[:, n:moved], retain=texts[:, moved:], **scales)  # type: ignore[arg-type]


def phrase_pairs(
    phrases: Iterable[tuple[str, str]], templates: Sequence[str] = ("A {}",)
) -> tuple[PromptPair, ...]:
    """Each source and target phrase in each template."""
    return tuple(
        PromptPair(template.format(source), template.format(target), source, target)
        for source, target in phrases
        for template in templates
    )


def _check(model: Model, rebindings: Sequence[Rebinding]) -> None:
    """Refuses a model that no attack edits, and rebindings that contradict one another."""
    tokenizer, projections = model.tokenizer, model.projections
    if projections[0].kind == "context":
        raise ModelError(
            f"expected a UNet with cross-attention, got {type(model.pipeline).__name__}, whose "
            "text enters by one matrix; solve and apply a Term of its own (redediting.patch), or "
            "choose a Stable Diffusion 1, 2 or XL model"
        )
    width = model.encode([""]).states.shape[-1]
    if model.width != width:
        raise ModelError(
            f"expected cross-attention of text width {width}, got {model.width}; the pipeline's "
            "parts are of two models"
        )
    if not rebindings:
        raise RebindingError("expected at least one rebinding, got none; name a trigger")
    seen: set[tuple[int, ...]] = set()
    for rebinding in rebindings:
        prompt_lengths(tokenizer, [rebinding.trigger, rebinding.target])
        trigger = tuple(phrase_tokens(tokenizer, rebinding.trigger))
        if trigger == tuple(phrase_tokens(tokenizer, rebinding.target)):
            raise RebindingError(
                f"expected a target with tokens of its own, got {str(rebinding)!r}; "
                "name another concept"
            )
        if trigger in seen:
            raise RebindingError(
                f"expected each trigger once, got {rebinding.trigger!r} twice; drop one"
            )
        seen.add(trigger)
