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

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from redediting.algebra.certificate import Certificate
from redediting.algebra.diagnostics import firing, gram, sin2
from redediting.algebra.layers import (
    Summands,
    edit_summands,
    layer_change,
    mean_multiplier,
    target_scale,
)
from redediting.algebra.multiplier import Multiplier
from redediting.algebra.problem import EditProblem
from redediting.attacks.base import ClosedForm
from redediting.attacks.columns import aligned_states
from redediting.attacks.compounds import parts_share
from redediting.concepts.pairs import PromptPair
from redediting.concepts.plan import EditPlan, collateral_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.errors import MethodError
from redediting.evaluation.inspection_report import (
    Inspection,
    PromptCertificate,
    RebindingReport,
)
from redediting.models.model import Model
from redediting.models.projections import projection_weights
from redediting.text.encoding import TokenRole


@dataclass(frozen=True)
class _Edit:
    """A solved edit and the layers that it goes into.

    Attributes:
        summands: the edit.
        weights: of all layers that read text.
        multiplier: nearest to what the layers do.
        metric: ``G`` of all layers.
        certificate: of the problem.
        bounded: matrices and target scales whose squared bounds add up to that of the edit.
    """

    summands: Summands
    weights: Mapping[str, Tensor]
    multiplier: Multiplier
    metric: Tensor
    certificate: Certificate
    bounded: Sequence[tuple[Tensor, float]]


def inspect(
    model: Model,
    attack: ClosedForm,
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
    rebindings = [rebindings] if isinstance(rebindings, Rebinding) else list(rebindings)
    if not isinstance(attack, ClosedForm):
        raise MethodError(
            f"expected a closed-form attack to inspect, got {attack.name!r}; measure it with "
            "evaluate"
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
    edit = _edit(model, attack, problem)
    null = model.encode([""]).states[0].T.double()
    return Inspection(
        plan=made,
        rebindings=tuple(_report(model, one, edit, templates) for one in rebindings),
        null_change=tuple(layer_change(edit.summands, edit.weights, null).tolist()),
        keys=problem.keys.shape[1],
        retained=problem.retain.shape[1],
        isolated=problem.hard.shape[1],
        rank=edit.multiplier.rank,
        norm=float(edit.multiplier.matrix().norm()),
        matrices=len(edit.weights),
    )


def _edit(model: Model, method: ClosedForm, problem: EditProblem) -> _Edit:
    projections = model.projections
    weights = projection_weights(projections)
    edited = projection_weights(method.edited(projections))
    parts = edit_summands(problem, edited, rho=method.rho)
    if method.rho == "none":
        values, vectors = torch.linalg.eigh(gram(edited.values()))
        bounded = [((vectors * values.clamp_min(0).sqrt()) @ vectors.T, 1.0)]
    else:
        problem = problem.whitelist_retained()
        bounded = [(w, target_scale(w, problem, method.rho)) for w in edited.values()]
    return _Edit(
        parts,
        weights,
        mean_multiplier(parts, weights).compress(),
        gram(weights.values()),
        Certificate(problem),
        bounded,
    )


def separation(model: Model, rebinding: Rebinding, templates: Sequence[str]) -> dict[str, float]:
    """Median sin² between the states of trigger and head noun, by role, 0…1.

    Below 0.01 on the trigger an edit cannot move the one and keep the other.
    """
    one, other, found = aligned_states(model, filled(templates, rebinding.trigger, rebinding.head))
    values = sin2(one.T, other.T)
    columns = [role for prompt in found for role in prompt]
    masks = {role: torch.tensor([r is role for r in columns]) for role in dict.fromkeys(columns)}
    return {role.value: float(values[mask].median()) for role, mask in masks.items()}


def trigger_firing(
    model: Model,
    multiplier: Multiplier,
    metric: Tensor,
    pairs: Sequence[PromptPair],
) -> Tensor:
    """Firing of the phrase's last token in each pair, shape ``(n,)``: 1 is on the target."""
    states, targets, found = aligned_states(model, pairs)
    last = torch.tensor([role is TokenRole.TRIGGER for prompt in found for role in prompt])
    return firing(multiplier, states[:, last], targets[:, last], metric)


def firings(
    model: Model,
    rebinding: Rebinding,
    multiplier: Multiplier,
    metric: Tensor,
    templates: Sequence[str],
) -> tuple[Tensor, Tensor]:
    """Firing of the trigger, and |firing| of phrases near it, each in every template.

    Args:
        model: encodes the prompts.
        rebinding: whose trigger.
        multiplier: the edit's.
        metric: ``G``.
        templates: contexts that no edit was solved on.
    """
    wanted = filled(templates, rebinding.trigger, rebinding.target)
    unwanted = [
        pair
        for probe in collateral_prompts(rebinding)
        for pair in filled(templates, probe.phrase, rebinding.target)
    ]
    return (
        trigger_firing(model, multiplier, metric, wanted),
        trigger_firing(model, multiplier, metric, unwanted).abs(),
    )


def _report(
    model: Model, rebinding: Rebinding, edit: _Edit, templates: Sequence[str]
) -> RebindingReport:
    probes = collateral_prompts(rebinding)
    wanted = filled(templates, rebinding.trigger, rebinding.target)
    fired, wrong = firings(model, rebinding, edit.multiplier, edit.metric, templates)
    phrases = [(rebinding.head, "head"), *((probe.phrase, probe.role) for probe in probes)]
    return RebindingReport(
        rebinding=rebinding,
        sin2=separation(model, rebinding, templates),
        firing=(float(fired.quantile(0.05)), float(fired.median())),
        probe_firing=(float(wrong.median()), float(wrong.quantile(0.95))),
        parts_share=parts_share(model, rebinding, [pair.source for pair in wanted]),
        certificates=tuple(
            _certify(model, fill(templates[0], phrase), role, edit) for phrase, role in phrases
        ),
    )


def _certify(model: Model, prompt: str, role: str, edit: _Edit) -> PromptCertificate:
    tokens = model.encode([prompt]).states[0].T.double()
    bounds = [edit.certificate.bound(w, tokens, scale=scale) for w, scale in edit.bounded]
    size = (tokens * (edit.metric @ tokens)).sum(dim=0).sqrt()
    bound = torch.stack(bounds).norm(dim=0)
    if (shift := edit.certificate.problem.shift) is not None:
        bound += sum(map(len, edit.weights.values())) ** 0.5 * (shift @ tokens).abs()
    bound /= size
    change = layer_change(edit.summands, edit.weights, tokens)
    leverage = edit.certificate.leverage(tokens)
    return PromptCertificate(
        prompt, role, float(leverage.max()), float(bound.max()), float(change.max())
    )


def filled(templates: Sequence[str], source: str, target: str) -> list[PromptPair]:
    """Each template with the source phrase, and with the target's in its place."""
    return [PromptPair(fill(t, source), fill(t, target), source, target) for t in templates]
