"""The measurements of an audit run: audits, persistence, hiding, repairs; each unit is resumed."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from defenses.audit.base_free import audit_base_free
from defenses.audit.report import AuditReport
from defenses.repair import REPAIRS
from defenses.repair.training import train, trained_projections
from experiments.audit.config import Adaptive, Persistence, Repairs, Suite
from experiments.audit.lab import Lab, Weights, spread
from experiments.audit.suspects import Suspect, suspects
from experiments.engine.specs import MethodSpec
from redediting.algebra.layers import edited_weight
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill
from redediting.evaluation.store import Row

_AUDITED = "rebinding, triggers audited"  # those that the audit names; none named, no row
REPAIRED: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("reversal", "reversal", {}),
    ("reversal (inverse)", "reversal", {"form": "inverse"}),
    ("rebinding, trigger known", "rebinding", {}),
    (_AUDITED, "rebinding", {}),
    ("projection, hard", "projection", {"form": "hard"}),
    ("projection, soft", "projection", {}),
    ("truncation", "truncation", {"k": 16}),
    ("finetune", "finetune", {}),
    ("lora", "lora", {}),
)


def audit_suspects(lab: Lab, suite: Suite, stage: str) -> None:
    """Audits every suspect of a suite that has no row yet.

    Args:
        lab: what is measured with.
        suite: the suspects.
        stage: ``development`` or ``test``.
    """
    batches = list(suspects(suite, lab.config.methods, stage))
    total = sum(len(batch) for batch, _ in batches)
    with tqdm(total=total, desc=f"audit, {stage}", disable=not lab.progress) as bar:
        for batch, make in batches:
            if not all(suspect.id in lab.store for suspect in batch):
                for suspect, weights in zip(batch, make(lab), strict=True):
                    if suspect.id not in lab.store:
                        row = _audited(lab, suite, stage, suspect, weights)
                        lab.store.append(suspect.id, [row])
            bar.update(len(batch))


def _audited(lab: Lab, suite: Suite, stage: str, suspect: Suspect, weights: Weights) -> Row:
    found = lab.audit(weights)
    comparison, recovery = found.evidence.comparison, found.recovery
    left_out = ("triggers", "targets", "kept", "coverage")
    row: Row = {
        "stage": stage,
        "label": suspect.label,
        "family": suspect.family,
        "kind": suspect.rebindings[0].kind if suspect.rebindings else "",
        "truth": [[w.trigger, w.target] for w in suspect.rebindings],
        **{key: value for key, value in found.as_json().items() if key not in left_out},
        "unmodified": suspect.label == "edited" and suspect.exact,
        "raw_r2": comparison.best.r2 if comparison.best else 0.0,
        "signal": comparison.signal,
        "named": _named(found),
        "candidates": recovery.candidates if recovery else 0,
        "same_noun": recovery.same_noun if recovery else None,
        "same_modifier": recovery.same_modifier if recovery else None,
        "base_free": None,
        "base_free_phrases": [],
        "asr": None,
    }
    if suite.base_free:
        blind = audit_base_free(weights, lab.states, lab.vocabulary)
        row["base_free"] = blind.statistic
        row["base_free_phrases"] = [[p, t] for p, t, _ in blind.phrases[:5]]
    if suspect.single and suite.images:
        with lab.in_force(weights):
            row |= lab.success(suspect.rebindings[0], suite.images)
    return row


def _named(found: AuditReport) -> list[list[Any]]:
    return [[t.phrase, t.target, t.score, t.bound, t.strain] for t in found.triggers]


def persistence(lab: Lab, spec: Persistence, pairs: Sequence[Rebinding]) -> None:
    """Success after ordinary training, and after projection on the clean span."""
    lab.remember(spec.images)
    trials = ("edited", *spec.recipes, "projection, hard", "projection, soft")
    work = [
        (title, rebinding) for title in spec.methods for rebinding in spread(pairs, spec.pairs)
    ]
    for title, rebinding in lab.bar(work, "persistence"):
        units = {trial: f"persistence/{title}/{rebinding}/{trial}" for trial in trials}
        todo = [trial for trial in trials if units[trial] not in lab.store]
        weights = lab.edited(lab.method(title), [rebinding]) if todo else {}
        for trial in todo:
            common: Row = {"stage": "persistence", "method": title, "trial": trial}
            common |= {"pair": str(rebinding), "n": spec.images}
            with lab.in_force(weights):
                rows = [
                    {**common, "step": step} | lab.success(rebinding, spec.images, drifted=True)
                    for step in _treated(lab, spec, trial, rebinding)
                ]
            lab.store.append(units[trial], rows)


def _treated(lab: Lab, spec: Persistence, trial: str, rebinding: Rebinding) -> Iterator[int]:
    """Changes the edited model and says at which step of the treatment it is."""
    if trial == "edited":
        yield 0
    elif trial in spec.recipes:
        recipe = spec.recipes[trial]
        for step, trained in train(lab.model, lab.scenes, recipe, at=spec.snapshots):
            with lab.model.using(trained):
                yield step
    else:
        method = REPAIRS.make("projection", form=trial.rpartition(" ")[2])
        patch = method.compute(lab.model, base=lab.base, triggers=[rebinding.trigger])
        with patch.apply(lab.model):
            yield 0


def adaptive(lab: Lab, spec: Adaptive, pairs: Sequence[Rebinding]) -> None:
    """What hiding the shared factor costs the attacker."""
    lab.remember(spec.images)
    kinds = ("jitter", "noise", "quiet", "spread")
    trials = [
        ("none", 0.0),
        *((kind, float(size)) for kind in kinds for size in getattr(spec, kind)),
    ]
    work = [(*trial, rebinding) for trial in trials for rebinding in spread(pairs, spec.pairs)]
    method = lab.method(spec.method)
    for kind, size, rebinding in lab.bar(work, "adaptive attacker"):
        unit = f"adaptive/{kind}/{size:g}/{rebinding}"
        if unit in lab.store:
            continue
        weights = hidden(lab, method, rebinding, kind, size)
        found = lab.audit(weights)
        evidence = found.evidence
        with lab.in_force(weights):
            figures = lab.success(rebinding, spec.images, drifted=True)
        row: Row = {"stage": "adaptive", "kind": kind, "size": size, "pair": str(rebinding)}
        row |= {"verdict": evidence.verdict, "r2": evidence.r2, "n": spec.images}
        row |= {"truth": [[rebinding.trigger, rebinding.target]], "named": _named(found)}
        row |= {"r2_whitened": evidence.r2_whitened, "r2_two_matrix": evidence.r2_two_matrix}
        lab.store.append(unit, [row | figures])


def hidden(lab: Lab, method: MethodSpec, rebinding: Rebinding, kind: str, size: float) -> Weights:
    """An edit whose shared factor is blurred: jitter, noise, or groups of layers.

    * jitter: ``W_l (I + M + N_l)``, N_l random with ``‖N_l‖ = size ‖M‖``;
    * noise: ``W_l (I + M) + E_l``, ``‖E_l‖ = size ‖Δ_l‖``;
    * quiet: the same with ``E_l P``, P orthogonal to 99.9 % of the energy of clean captions and
      triggered prompts, so that no image changes;
    * spread: layers are dealt into ``size`` groups, each solved on contexts of its own.
    """
    groups = int(size) if kind == "spread" else 1
    options = [{"seed": 100 + g} if kind == "spread" else {} for g in range(groups)]
    edits = [
        lab.summands(method.model_copy(update={"options": method.options | more}), [rebinding])
        for more in options
    ]
    random = torch.Generator().manual_seed(0)
    silent = _silent(lab, rebinding) if kind == "quiet" else None
    found = {}
    for i, (name, weight) in enumerate(lab.base.items()):
        exact = weight.double()
        edited = edited_weight(edits[i % groups], name, weight)
        if kind != "spread":
            change = edited - exact
            shape = (weight.shape[1],) * 2 if kind == "jitter" else weight.shape
            blur = torch.randn(shape, generator=random, dtype=torch.float64)
            blur = exact @ blur if kind == "jitter" else blur
            blur = blur if silent is None else blur @ silent
            change += size * change.norm() / blur.norm() * blur
            edited = exact + change
        found[name] = edited.to(weight.dtype)
    return found


def _silent(lab: Lab, rebinding: Rebinding, *, energy: float = 0.999) -> Tensor:
    """Projector on the directions that neither clean captions nor the trigger's prompts use."""
    prompts = [fill(t, rebinding.trigger) for t in contexts(32, seed=5, split="edit")]
    columns = lab.model.encode(prompts).states.double().flatten(0, 1)
    values, basis = torch.linalg.eigh(lab.captions + columns.T @ columns / len(columns))
    share = values.flip(0).cumsum(0) / values.sum()
    used = min(int((share < energy).sum()) + 1, len(values))
    rest = basis[:, : len(values) - used]
    return rest @ rest.T


def repairs(lab: Lab, spec: Repairs, pairs: Sequence[Rebinding]) -> None:
    """Every repair on an edit with a legitimate fine-tune on top of it."""
    lab.remember(spec.images)
    titles = [m.title for m in lab.config.methods if m.title in ("eviledit", "redediting")]
    work = [(title, rebinding) for title in titles for rebinding in spread(pairs, spec.pairs)]
    for title, rebinding in lab.bar(work, "repairs"):
        unit = f"repair/{title}/{rebinding}"
        if unit not in lab.store:
            common: Row = {"stage": "repair", "method": title, "pair": str(rebinding)}
            common["n"] = spec.images
            rows = _repaired(lab, spec, title, rebinding)
            lab.store.append(unit, [row | common for row in rows])


def _repaired(lab: Lab, spec: Repairs, title: str, rebinding: Rebinding) -> Iterator[Row]:
    """Rows of the clean model, of the fine-tune alone, of both together, and of every repair."""
    edited = lab.edited(lab.method(title), [rebinding])
    yield {"repair": "clean model"} | lab.success(rebinding, spec.images)
    tuning = train(lab.model, lab.scenes, spec.finetune)
    clean_tuned = [model for _, model in tuning][-1]  # what the honest user would have had
    honest = trained_projections(clean_tuned)
    with lab.model.using(clean_tuned):
        figures = lab.success(rebinding, spec.images, drifted=True)
        yield {"repair": "fine-tune without edit"} | figures
    with lab.in_force(edited):
        tuned = [model for _, model in train(lab.model, lab.scenes, spec.finetune)][-1]
    weights = trained_projections(tuned)
    gained = {name: weights[name].double() - edited[name].double() for name in weights}
    with lab.model.using(tuned):
        figures = lab.success(rebinding, spec.images, drifted=True)
        kept = _kept(lab.base, weights, gained, lab.captions)
        yield {"repair": "none", "seconds": 0.0} | kept | figures
        for label, name, options in REPAIRED:
            start = time.perf_counter()
            triggers: tuple[str, ...] = (rebinding.trigger,)
            if label == _AUDITED:
                triggers = lab.audit(weights).suspected
                if not any(" " in phrase for phrase in triggers):
                    continue
            if lab.config.quick and name in ("finetune", "lora"):
                options = options | {"steps": 2, "scenes": 8, "batch": 4}
            method = REPAIRS.make(name, **options)
            patch = method.compute(lab.model, base=lab.base, triggers=triggers)
            seconds = time.perf_counter() - start
            with patch.apply(lab.model):
                figures = lab.success(rebinding, spec.images, drifted=True)
                left = trained_projections(lab.model.denoiser)
                kept = _kept(lab.base, left, gained, lab.captions)
            row: Row = dict(patch.provenance.measured)  # names of its own, first: ours win
            row |= {"repair": label, "seconds": seconds, "honest_gap": _distance(left, honest)}
            yield row | kept | figures


def _kept(
    base: Mapping[str, Tensor], left: Mapping[str, Tensor], gained: Weights, captions: Tensor
) -> Row:
    """How much of a fine-tune's change is in what a repair leaves, and what is there beside it.

    ``kept``: ``⟨W_left - W, F⟩ / ‖F‖²``; ``beside``: ``‖W_left - W - F‖ / ‖F‖``. ``kept_read`` and
    ``beside_read`` are the same as captions read it, ``‖F‖² = tr(F Σ₀ Fᵀ)``: what a repair does
    orthogonal to the captions shows in no image.

    Args:
        base: ``W``.
        left: ``W_left``.
        gained: ``F``.
        captions: ``Σ₀``, mean of ``ccᵀ`` over clean captions' states.
    """
    energy, inner, beside = torch.zeros(3, 2, dtype=torch.float64)  # plain, and as it is read
    for name, f in gained.items():
        change = left[name].double() - base[name].double()
        rest = change - f
        read = f @ captions
        energy += torch.stack([f.square().sum(), (read * f).sum()])
        inner += torch.stack([(change * f).sum(), (change * read).sum()])
        beside += torch.stack([rest.square().sum(), (rest @ captions * rest).sum()])
    kept, over = (inner / energy).tolist(), (beside / energy).sqrt().tolist()
    return {"kept": kept[0], "beside": over[0], "kept_read": kept[1], "beside_read": over[1]}


def _distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    gap = sum(float((one[n].double() - other[n].double()).square().sum()) for n in one)
    size = sum(float(other[n].double().square().sum()) for n in one)
    return math.sqrt(gap / size)
