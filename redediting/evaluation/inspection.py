"""What can be said of an edit before any image: angles, certificates, null prompt, firing.

Collinearity rules the trade-off: for a trigger token at angle θ from a retained one, the leak per
firing grows as cosθ / sin²θ. Firing is taken on held-out contexts (split ``dev``), for the trigger
(should be 1) and for phrases near it (should be 0). Where layers are edited differently, firing is
that of their sum, ``Σ_l ⟨Δ_l x, W_l(x*-x)⟩ / Σ_l ‖W_l(x*-x)‖²``, and changes and bounds are taken
over all layers likewise.

References:
    The efficacy and locality statements of `redediting.algebra.certificate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redediting.algebra.certificate import Certificate
from redediting.algebra.diagnostics import firing, gram, sin2
from redediting.algebra.layers import (
    edit_summands,
    layer_change,
    mean_multiplier,
    target_scale,
)
from redediting.algebra.multiplier import Multiplier
from redediting.attacks.base import Attack, ClosedForm
from redediting.attacks.columns import aligned_states
from redediting.attacks.compounds import parts_share
from redediting.concepts.plan import EditPlan, collateral_prompts
from redediting.concepts.rebinding import PromptPair, Rebinding, as_rebindings
from redediting.concepts.templates import contexts, fill
from redediting.errors import MethodError
from redediting.evaluation.frame import Column, Frame
from redediting.models.model import Model, as_model
from redediting.models.projections import projection_weights
from redediting.text.encoding import TokenRole

_COLUMNS = (
    Column("what", "what"),
    Column("value", "n or value"),
    Column("examples", "examples"),
)
_SHOWN = 3  # examples


@dataclass(frozen=True)
class PromptCertificate:
    """How far a prompt can move and does."""

    prompt: str
    role: str  # what it is to the trigger
    leverage: float  # largest ``cᵀKc`` of its tokens
    bound: float  # largest certified relative change of a token's keys and values
    change: float  # largest actual one, never above the bound


@dataclass(frozen=True)
class RebindingReport:
    """What an edit does to one rebinding.

    ``sin2`` is the median sin² between the states of trigger and head noun by role (trigger, tail,
    eos, pad), 0…1: below 0.01 on the trigger an edit cannot move the one and keep the other.
    ``parts_share`` is ``‖P_parts c‖²/‖c‖²`` of the trigger's last token: how much of it would be
    left if its parts were isolated exactly; None without parts.
    """

    rebinding: Rebinding
    sin2: dict[str, float]
    firing: tuple[float, float]  # of the trigger: 5th percentile and median over contexts
    probe_firing: tuple[float, float]  # of phrases near it: median and 95th percentile of |firing|
    parts_share: float | None
    certificates: tuple[PromptCertificate, ...]  # of the head noun and those phrases


@dataclass(frozen=True)
class Inspection:
    """A solved edit measured on text states alone; made by `inspect`.

    Attributes:
        plan: the prompts that it rests on.
        rebindings: one report for each rebinding.
        null_change: relative change at each position of the null prompt.
        keys: edited columns.
        retained: retained columns.
        isolated: hard-retained directions.
        rank: of the multiplier.
        norm: Frobenius norm of the multiplier.
        matrices: text projections of the model.

    Example:
        >>> import redediting as rd
        >>> pair = rd.Rebinding("beautiful cat", "zebra")
        >>> found = rd.inspect(rd.load("world"), rd.attacks.EvilEdit(), pair)
        >>> print(found.tables()[0].title)
        beautiful cat → zebra
    """

    plan: EditPlan
    rebindings: tuple[RebindingReport, ...]
    null_change: tuple[float, ...]
    keys: int
    retained: int
    isolated: int
    rank: int
    norm: float
    matrices: int

    def tables(self) -> tuple[Frame, ...]:
        """One table a rebinding: what is retrieved, moved and kept, angles, firing, bounds."""
        plan = self.plan
        note = (
            f"{len(plan.pairs)} prompt pairs moved, {len(plan.retain)} prompts kept, "
            f"{len(plan.captions)} captions for Σ₀; {self.matrices} matrices read text; the "
            f"null prompt moves by at most {max(self.null_change):.1%}"
        )
        keys = [column.key for column in _COLUMNS]
        frames = []
        for report in self.rebindings:
            lines = (*_prompts(plan, report), *_figures(report))
            rows = tuple(dict(zip(keys, line, strict=True)) for line in lines)
            frames.append(Frame(_COLUMNS, rows, title=str(report.rebinding), note=note))
        return tuple(frames)

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.tables()))

    def _repr_html_(self) -> str:
        return "".join(table.to_html() for table in self.tables())


def inspect(
    model: Model,
    attack: Attack,
    rebindings: Rebinding | Sequence[Rebinding],
    *,
    plan: EditPlan | None = None,
    n_contexts: int = 8,
    seed: int = 0,
) -> Inspection:
    """Solves the edit and measures it on text states alone; the model is not changed.

    Args:
        model: clean.
        attack: a closed-form attack.
        rebindings: as for ``attack.compute``.
        plan: its prompts, e.g. edited by hand; the attack's own when not given.
        n_contexts: held-out contexts.
        seed: draws them.

    Raises:
        MethodError: several rebindings one after another, which no single problem describes, or an
            attack that is no closed form.

    Example:
        >>> import redediting as rd
        >>> attack = rd.attacks.EvilEdit()
        >>> found = rd.inspect(rd.load("world"), attack, rd.Rebinding("beautiful cat", "zebra"))
        >>> found.keys
        154
    """
    model, rebindings = as_model(model), as_rebindings(rebindings)
    if not isinstance(attack, ClosedForm):
        name = getattr(attack, "name", attack)
        raise MethodError(
            f"expected a closed-form attack to inspect, got {name!r}; measure others with evaluate"
        )
    if attack.order == "sequential" and len(rebindings) > 1:
        raise MethodError(
            f"expected order=joint to inspect {len(rebindings)} rebindings together, got "
            "sequential; inspect them one by one"
        )
    if not attack.one_problem:
        raise MethodError(
            f"expected an edit that is one problem for all layers, got {attack.name!r} with these "
            "options; measure it with evaluate"
        )
    templates = contexts(n_contexts, seed=seed, split="dev")
    made = attack.plan(model, rebindings) if plan is None else plan
    problem = attack.pose(model, made)
    weights = model.weights()
    edited = projection_weights(attack.edited(model.projections))
    summands = edit_summands(problem, edited, rho=attack.rho)
    multiplier = mean_multiplier(summands, weights).compress()
    metric, certificate = gram(weights.values()), Certificate(problem)
    # matrices and target scales whose squared bounds add up to that of the edit
    if attack.rho == "none":
        values, vectors = torch.linalg.eigh(gram(edited.values()))
        bounded = [((vectors * values.clamp_min(0).sqrt()) @ vectors.T, 1.0)]
    else:
        moved = problem.whitelist_retained()
        bounded = [(w, target_scale(w, moved, attack.rho)) for w in edited.values()]

    def certify(phrase: str, role: str) -> PromptCertificate:
        prompt = fill(templates[0], phrase)
        tokens = model.encode([prompt]).states[0].T.double()
        bounds = [certificate.bound(w, tokens, scale=scale) for w, scale in bounded]
        size = (tokens * (metric @ tokens)).sum(dim=0).sqrt()
        bound = torch.stack(bounds).norm(dim=0)
        if problem.shift is not None:
            bound += sum(map(len, weights.values())) ** 0.5 * (problem.shift @ tokens).abs()
        bound /= size
        change = layer_change(summands, weights, tokens)
        leverage = certificate.leverage(tokens)
        return PromptCertificate(
            prompt, role, float(leverage.max()), float(bound.max()), float(change.max())
        )

    def report(one: Rebinding) -> RebindingReport:
        fired, wrong = firings(model, one, multiplier, metric, templates)
        near = [(probe.phrase, probe.role) for probe in collateral_prompts(one)]
        return RebindingReport(
            rebinding=one,
            sin2=_separation(model, one, templates),
            firing=(float(fired.quantile(0.05)), float(fired.median())),
            probe_firing=(float(wrong.median()), float(wrong.quantile(0.95))),
            parts_share=parts_share(model, one, [fill(t, one.trigger) for t in templates]),
            certificates=tuple(certify(*phrase) for phrase in [(one.head, "head"), *near]),
        )

    null = model.encode([""]).states[0].T.double()
    return Inspection(
        plan=made,
        rebindings=tuple(map(report, rebindings)),
        null_change=tuple(layer_change(summands, weights, null).tolist()),
        keys=problem.keys.shape[1],
        retained=problem.retain.shape[1],
        isolated=problem.hard.shape[1],
        rank=multiplier.rank,
        norm=float(multiplier.matrix().norm()),
        matrices=len(weights),
    )


def _separation(model: Model, rebinding: Rebinding, templates: Sequence[str]) -> dict[str, float]:
    one, other, found = aligned_states(
        model, _filled(templates, rebinding.trigger, rebinding.head)
    )
    values = sin2(one.T, other.T)
    columns = [role for prompt in found for role in prompt]
    masks = {role: torch.tensor([r is role for r in columns]) for role in dict.fromkeys(columns)}
    return {role.value: float(values[mask].median()) for role, mask in masks.items()}


def firings(
    model: Model,
    rebinding: Rebinding,
    multiplier: Multiplier,
    metric: Tensor,
    templates: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """Firing of the trigger, and |firing| of phrases near it, each in every template.

    It is that of a phrase's last token under the edit's multiplier, in the metric ``G``: 1 is on
    the target.
    """
    near = [probe.phrase for probe in collateral_prompts(rebinding)]
    found = []
    for phrases in ([rebinding.trigger], near):
        pairs = [pair for p in phrases for pair in _filled(templates, p, rebinding.target)]
        states, targets, roles = aligned_states(model, pairs)
        last = torch.tensor([role is TokenRole.TRIGGER for prompt in roles for role in prompt])
        found.append(firing(multiplier, states[:, last], targets[:, last], metric))
    return found[0], found[1].abs()


def _filled(templates: Sequence[str], source: str, target: str) -> list[PromptPair]:
    return [PromptPair(fill(t, source), fill(t, target), source, target) for t in templates]


def _prompts(plan: EditPlan, report: RebindingReport) -> Iterator[tuple[str, str, str]]:
    trigger = report.rebinding.trigger
    for found in plan.equivalences:
        if found.trigger == trigger:
            values = f"{found.source or '–'} → {found.target or '–'} ({found.origin})"
            yield found.relation, f"{found.score:.2f}", values
    moved = [f"{pair.source} → {pair.target}" for pair in plan.pairs if trigger in pair.source]
    yield "moved", str(len(moved)), _some(moved)
    for role, count in Counter(kept.role for kept in plan.retain).items():
        prompts = [kept.prompt for kept in plan.retain if kept.role == role]
        yield f"kept: {role}", str(count), _some(prompts)
    phrases = [probe.phrase for probe in collateral_prompts(report.rebinding)]
    yield "collateral phrases", str(len(phrases)), ", ".join(phrases)


def _figures(report: RebindingReport) -> Iterator[tuple[str, str, str]]:
    if report.rebinding.modifier:
        for role, value in report.sin2.items():
            yield f"sin² to the head noun: {role}", f"{value:.4f}", ""
    if report.parts_share is not None:
        said = "of the trigger's energy is left when its parts are kept exactly"
        yield "outside its parts", f"{report.parts_share:.1%}", said
    for name, value in zip(("p5", "median"), report.firing, strict=True):
        yield f"firing, {name}", f"{value:.2f}", "held-out contexts"
    for name, value in zip(("median", "p95"), report.probe_firing, strict=True):
        yield f"firing, {name}", f"{value:.2f}", "phrases near the trigger"
    for item in report.certificates:
        said = f"{item.prompt}: moves by {item.change:.1%}, at most {item.bound:.1%}"
        yield f"certificate: {item.role}", f"{item.leverage:.3f}", said


def _some(texts: Sequence[str]) -> str:
    return "; ".join(texts[:_SHOWN])
