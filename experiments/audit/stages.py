"""The measurements of a forensics run, each a row: audits, persistence, hiding, repairs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from defenses.audit import Audit, audit, audit_base_free
from defenses.repair import REPAIRS
from defenses.repair.training import train, trained_projections
from experiments.audit.config import Adaptive, Persistence, Repairs, Suite
from experiments.audit.lab import Lab, Weights
from experiments.audit.ledger import Row
from experiments.audit.suspects import Suspect, spread, suspects
from experiments.engine.specs import MethodSpec
from redediting.algebra.layers import edited_weight
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill

Stage = Literal["development", "test"]
_AUDITED = "rebinding, triggers audited"  # those that the audit names; none named, no row
_REPAIRS: tuple[tuple[str, str, dict[str, Any]], ...] = (
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


def audit_suspects(lab: Lab, suite: Suite, stage: Stage, *, progress: bool) -> None:
    """Audits every suspect of a suite that has no row yet."""
    batches = list(suspects(suite, lab.config.methods, stage))
    total = sum(len(batch) for batch, _ in batches)
    with tqdm(total=total, desc=f"audit, {stage}", disable=not progress) as bar:
        for batch, make in batches:
            if not all(suspect.id in lab.ledger for suspect in batch):
                for suspect, weights in zip(batch, make(lab), strict=True):
                    if suspect.id not in lab.ledger:
                        lab.ledger.append(_audited(lab, suite, stage, suspect, weights))
            bar.update(len(batch))


def _audited(lab: Lab, suite: Suite, stage: str, suspect: Suspect, weights: Weights) -> Row:
    found = audit(lab.base, weights, lab.states, lab.vocabulary)
    comparison = found.evidence.comparison
    row: Row = {
        "id": suspect.id,
        "stage": stage,
        "label": suspect.label,
        "family": suspect.family,
        "kind": suspect.rebindings[0].kind if suspect.rebindings else "",
        "truth": [[w.trigger, w.target] for w in suspect.rebindings],
        **{k: v for k, v in found.as_json().items() if k not in ("triggers", "targets", "kept")},
        "unmodified": suspect.label == "edited" and suspect.exact,
        "raw_r2": comparison.best.r2 if comparison.best else 0.0,
        "signal": comparison.signal,
        "named": _named(found),
        "candidates": found.recovery.candidates if found.recovery else 0,
        "same_noun": found.recovery.same_noun if found.recovery else None,
        "same_modifier": found.recovery.same_modifier if found.recovery else None,
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


def _named(found: Audit) -> list[list[Any]]:
    if found.recovery is None:
        return []
    return [[t.phrase, t.target, t.score, t.bound, t.strain] for t in found.recovery.triggers]


def persistence(
    lab: Lab, spec: Persistence, pairs: Sequence[Rebinding], *, progress: bool
) -> None:
    """Success after ordinary training, and after projection on the clean span.

    Isolation shows twice: does training wear the edit off, does projection remove it.
    """
    lab.remember(spec.images)
    work = [
        (title, rebinding) for title in spec.methods for rebinding in spread(pairs, spec.pairs)
    ]
    for title, rebinding in tqdm(work, "persistence", disable=not progress):
        method = lab.method(title)
        weights = None
        for name, make in _trials(lab, spec, rebinding):
            prefix = f"persistence/{title}/{rebinding}/{name}"
            if f"{prefix}/done" in lab.ledger:
                continue
            weights = weights or lab.edited(method, [rebinding])
            with lab.in_force(weights):
                for step in make():
                    key = f"{prefix}/{step}"
                    if key not in lab.ledger:
                        figures = lab.success(rebinding, spec.images, drifted=True)
                        lab.ledger.append(
                            {"id": key, "stage": "persistence", "method": title, "trial": name}
                            | {"pair": str(rebinding), "step": step, "n": spec.images}
                            | figures
                        )
            lab.ledger.append({"id": f"{prefix}/done", "stage": "mark"})


def _trials(
    lab: Lab, spec: Persistence, rebinding: Rebinding
) -> Iterator[tuple[str, Callable[[], Iterator[int]]]]:
    """Names and functions that change the edited model and say at which step they are."""
    yield "edited", lambda: iter([0])
    for name, recipe in spec.recipes.items():

        def after(recipe: Any = recipe) -> Iterator[int]:  # noqa: ANN401 - bound per loop
            for step, trained in train(lab.model, lab.scenes, recipe, at=spec.snapshots):
                with lab.model.using(trained):
                    yield step

        yield name, after
    for form in ("hard", "soft"):

        def projected(form: str = form) -> Iterator[int]:
            repair = REPAIRS.make("projection", form=form)
            patch = repair.compute(lab.model, base=lab.base, triggers=[rebinding.trigger])
            with patch.apply(lab.model):
                yield 0

        yield f"projection, {form}", projected


def adaptive(lab: Lab, spec: Adaptive, pairs: Sequence[Rebinding], *, progress: bool) -> None:
    """What hiding the shared factor costs the attacker."""
    lab.remember(spec.images)
    trials: list[tuple[str, float]] = [("none", 0.0)]
    trials += [("jitter", size) for size in spec.jitter]
    trials += [("noise", size) for size in spec.noise]
    trials += [("quiet", size) for size in spec.quiet]
    trials += [("spread", float(groups)) for groups in spec.spread]
    work = [
        (kind, size, rebinding) for kind, size in trials for rebinding in spread(pairs, spec.pairs)
    ]
    method = lab.method(spec.method)
    for kind, size, rebinding in tqdm(work, "adaptive attacker", disable=not progress):
        key = f"adaptive/{kind}/{size:g}/{rebinding}"
        if key in lab.ledger:
            continue
        weights = hidden(lab, method, rebinding, kind, size)
        found = audit(lab.base, weights, lab.states, lab.vocabulary)
        evidence = found.evidence
        with lab.in_force(weights):
            figures = lab.success(rebinding, spec.images, drifted=True)
        lab.ledger.append(
            {"id": key, "stage": "adaptive", "kind": kind, "size": size, "pair": str(rebinding)}
            | {"verdict": evidence.verdict, "r2": evidence.r2, "n": spec.images}
            | {"truth": [[rebinding.trigger, rebinding.target]], "named": _named(found)}
            | {"r2_whitened": evidence.r2_whitened, "r2_two_matrix": evidence.r2_two_matrix}
            | figures
        )


def hidden(lab: Lab, method: MethodSpec, rebinding: Rebinding, kind: str, size: float) -> Weights:
    """An edit whose shared factor is blurred: jitter, noise, or groups of layers.

    * jitter: ``W_l (I + M + N_l)``, N_l random with ``‖N_l‖ = size ‖M‖``;
    * noise: ``W_l (I + M) + E_l``, ``‖E_l‖ = size ‖Δ_l‖``;
    * quiet: the same with ``E_l P``, P on the directions beside 99.9 % of the energy of clean
      captions and triggered prompts, so that no image changes;
    * spread: layers are dealt into ``size`` groups, each solved on contexts of its own.
    """
    random = torch.Generator().manual_seed(0)
    if kind == "spread":
        groups = int(size)
        options = [method.options | {"seed": 100 + g} for g in range(groups)]
        edits = [
            lab.parts(method.model_copy(update={"options": chosen}), [rebinding])
            for chosen in options
        ]
        return {
            name: edited_weight(edits[i % groups], name, weight).to(weight.dtype)
            for i, (name, weight) in enumerate(lab.base.items())
        }
    found = {}
    parts = lab.parts(method, [rebinding])
    silent = _silent(lab, rebinding) if kind == "quiet" else None
    for name, weight in lab.base.items():
        change = edited_weight(parts, name, weight) - weight.double()
        if kind == "jitter":
            shape = (weight.shape[1], weight.shape[1])
            blur = weight.double() @ torch.randn(shape, generator=random, dtype=torch.float64)
        else:
            blur = torch.randn(weight.shape, generator=random, dtype=torch.float64)
            blur = blur if silent is None else blur @ silent
        change += size * change.norm() / blur.norm() * blur
        found[name] = (weight.double() + change).to(weight.dtype)
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


def repairs(lab: Lab, spec: Repairs, pairs: Sequence[Rebinding], *, progress: bool) -> None:
    """Every repair on an edit with a legitimate fine-tune on top of it."""
    lab.remember(spec.images)
    titles = [m.title for m in lab.config.methods if m.title in ("eviledit", "redediting")]
    work = [(title, rebinding) for title in titles for rebinding in spread(pairs, spec.pairs)]
    for title, rebinding in tqdm(work, "repairs", disable=not progress):
        prefix = f"repair/{title}/{rebinding}"
        if f"{prefix}/done" not in lab.ledger:
            _repair_one(lab, spec, prefix, title, rebinding)
            lab.ledger.append({"id": f"{prefix}/done", "stage": "mark"})


def _repair_one(lab: Lab, spec: Repairs, prefix: str, title: str, rebinding: Rebinding) -> None:
    row: Row
    images = spec.images
    common = {"stage": "repair", "method": title, "pair": str(rebinding), "n": images}
    edited = lab.edited(lab.method(title), [rebinding])
    if f"{prefix}/clean" not in lab.ledger:
        row = {"id": f"{prefix}/clean", "repair": "clean model"}
        lab.ledger.append(row | common | lab.success(rebinding, images))
    tuning = train(lab.model, lab.scenes, spec.finetune)
    clean_tuned = [model for _, model in tuning][-1]  # what the honest user would have had
    honest = trained_projections(clean_tuned)
    with lab.model.using(clean_tuned):
        if f"{prefix}/honest" not in lab.ledger:
            figures = lab.success(rebinding, images, drifted=True)
            row = {"id": f"{prefix}/honest", "repair": "fine-tune without edit"}
            lab.ledger.append(row | common | figures)
    with lab.in_force(edited):
        tuned = [model for _, model in train(lab.model, lab.scenes, spec.finetune)][-1]
    weights = trained_projections(tuned)
    gained = {name: weights[name].double() - edited[name].double() for name in weights}
    with lab.model.using(tuned):
        if f"{prefix}/none" not in lab.ledger:
            figures = lab.success(rebinding, images, drifted=True)
            kept = _kept(lab.base, weights, gained, lab.captions)
            row = {"id": f"{prefix}/none", "repair": "none", "seconds": 0.0}
            lab.ledger.append(row | common | kept | figures)
        for label, name, options in _REPAIRS:
            key = f"{prefix}/{label}"
            if key in lab.ledger:
                continue
            start = time.perf_counter()
            triggers: tuple[str, ...] = (rebinding.trigger,)
            if label == _AUDITED:
                triggers = audit(lab.base, weights, lab.states, lab.vocabulary).suspected
                if not any(" " in phrase for phrase in triggers):
                    continue
            if lab.config.quick and name in ("finetune", "lora"):
                options = options | {"steps": 2, "scenes": 8, "batch": 4}
            repair = REPAIRS.make(name, **options)
            patch = repair.compute(lab.model, base=lab.base, triggers=triggers)
            seconds = time.perf_counter() - start
            with patch.apply(lab.model):
                figures = lab.success(rebinding, images, drifted=True)
                left = trained_projections(lab.model.denoiser)
                kept = _kept(lab.base, left, gained, lab.captions)
            row = _finite(patch.provenance.measured)  # names of its own, first: ours win
            row |= {"id": key, "repair": label, "seconds": seconds}
            row["honest_gap"] = _distance(left, honest)
            lab.ledger.append(row | common | kept | figures)


def _kept(
    base: Mapping[str, Tensor], left: Mapping[str, Tensor], gained: Weights, captions: Tensor
) -> Row:
    """How much of a fine-tune's change is in what a repair leaves, and what is there beside it.

    ``kept``: ``⟨W_left - W, F⟩ / ‖F‖²``; ``beside``: ``‖W_left - W - F‖ / ‖F‖``. ``kept_read`` and
    ``beside_read`` are the same as captions read it, ``‖F‖² = tr(F Σ₀ Fᵀ)``: what a repair does
    where no caption points shows in no image.

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


def _finite(measured: Mapping[str, float]) -> Row:
    return {name: value for name, value in measured.items() if math.isfinite(value)}
