"""The measurements of an audit run: audits, persistence, hiding, repairs; each unit is resumed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any

from defenses.audit.base_free import audit_base_free
from defenses.audit.challenges import distance, hidden, what_is_left
from defenses.audit.report import AuditReport
from defenses.repair import REPAIRS
from defenses.repair.training import train, trained_projections
from experiments.audit.config import Adaptive, Persistence, Repairs, Suite
from experiments.audit.lab import Lab
from experiments.audit.suspects import Suspect, spread, suspects
from redediting.algebra.diagnostics import second_moment
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
    """Audits every suspect of a suite; the stage is ``development`` or ``test``."""
    units = {suspect.id: suspect for suspect in suspects(suite, lab.config.methods, stage)}
    lab.fill(units, lambda suspect: [{"stage": stage} | _audited(lab, suite, suspect)])


def _audited(lab: Lab, suite: Suite, suspect: Suspect) -> Row:
    weights = suspect.make(lab)
    found = lab.audit(weights)
    comparison, recovery = found.evidence.comparison, found.recovery
    kept = ("verdict", "r2", "r2_whitened", "r2_two_matrix", "rank", "footprint", "changed_beside",
            "seconds")  # fmt: skip
    row: Row = {
        "label": suspect.label,
        "family": suspect.family,
        "kind": suspect.rebindings[0].kind if suspect.rebindings else "",
        "truth": [[w.trigger, w.target] for w in suspect.rebindings],
        **{key: value for key, value in found.as_json().items() if key in kept},
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

    def rows(unit: tuple[str, Rebinding, str]) -> Iterator[Row]:
        title, pair, trial = unit
        with lab.in_force(lab.edited(lab.method(title), [pair])):
            for step in _treated(lab, spec, trial, pair):
                row: Row = {"stage": "persistence", "method": title, "trial": trial}
                row |= {"pair": str(pair), "n": spec.images, "step": step}
                yield row | lab.success(pair, spec.images, drifted=True)

    trials = ("edited", *spec.recipes, "projection, hard", "projection, soft")
    chosen = spread(pairs, spec.pairs)
    work = [(title, pair, trial) for title in spec.methods for pair in chosen for trial in trials]
    lab.remember(spec.images)
    lab.fill({f"persistence/{t}/{p}/{trial}": (t, p, trial) for t, p, trial in work}, rows)


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
    method = lab.method(spec.method)

    def rows(unit: tuple[str, float, Rebinding]) -> Iterator[Row]:
        kind, size, pair = unit
        options = [{"seed": 100 + g} for g in range(int(size))] if kind == "spread" else [{}]
        specs = [method.model_copy(update={"options": method.options | o}) for o in options]
        edits = [lab.summands(one, [pair]) for one in specs]
        used = None
        if kind == "quiet":
            prompts = [fill(t, pair.trigger) for t in contexts(32, seed=5, split="edit")]
            states = lab.model.encode(prompts).states.flatten(0, 1)
            used = lab.captions + second_moment(states.T, floor=0.0)
        weights = hidden(lab.base, edits, kind, size, used)
        found = lab.audit(weights)
        evidence = found.evidence
        row: Row = {"stage": "adaptive", "kind": kind, "size": size, "pair": str(pair)}
        row |= {"verdict": evidence.verdict, "r2": evidence.r2, "n": spec.images}
        row |= {"truth": [[pair.trigger, pair.target]], "named": _named(found)}
        row |= {"r2_whitened": evidence.r2_whitened, "r2_two_matrix": evidence.r2_two_matrix}
        with lab.in_force(weights):
            yield row | lab.success(pair, spec.images, drifted=True)

    trials = [("none", 0.0)]
    for kind in ("jitter", "noise", "quiet", "spread"):
        trials += [(kind, float(size)) for size in getattr(spec, kind)]
    work = [(*trial, pair) for trial in trials for pair in spread(pairs, spec.pairs)]
    lab.remember(spec.images)
    lab.fill({f"adaptive/{kind}/{n:g}/{p}": (kind, n, p) for kind, n, p in work}, rows)


def repairs(lab: Lab, spec: Repairs, pairs: Sequence[Rebinding]) -> None:
    """Every repair on an edit with a legitimate fine-tune on top of it."""

    def rows(unit: tuple[str, Rebinding]) -> Iterator[Row]:
        common = {"stage": "repair", "method": unit[0], "pair": str(unit[1]), "n": spec.images}
        return (row | common for row in _repaired(lab, spec, *unit))

    titles = [m.title for m in lab.config.methods if m.title in ("eviledit", "redediting")]
    work = [(title, pair) for title in titles for pair in spread(pairs, spec.pairs)]
    lab.remember(spec.images)
    lab.fill({f"repair/{title}/{pair}": (title, pair) for title, pair in work}, rows)


def _repaired(lab: Lab, spec: Repairs, title: str, rebinding: Rebinding) -> Iterator[Row]:
    """Rows of the clean model, of the fine-tune alone, of both together, and of every repair."""

    def success() -> dict[str, float]:
        return lab.success(rebinding, spec.images, drifted=True)

    edited = lab.edited(lab.method(title), [rebinding])
    yield {"repair": "clean model"} | lab.success(rebinding, spec.images)
    clean_tuned = [model for _, model in train(lab.model, lab.scenes, spec.finetune)][-1]
    honest = trained_projections(clean_tuned)  # what the honest user would have had
    with lab.model.using(clean_tuned):
        yield {"repair": "fine-tune without edit"} | success()
    with lab.in_force(edited):
        tuned = [model for _, model in train(lab.model, lab.scenes, spec.finetune)][-1]
    weights = trained_projections(tuned)
    gained = {name: weights[name].double() - edited[name].double() for name in weights}
    with lab.model.using(tuned):
        kept = what_is_left(lab.base, weights, gained, lab.captions)
        yield {"repair": "none", "seconds": 0.0} | kept | success()
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
                left = trained_projections(lab.model.denoiser)
                row: Row = dict(patch.provenance.measured)  # names of its own, first: ours win
                row |= {"repair": label, "seconds": seconds, "honest_gap": distance(left, honest)}
                yield row | what_is_left(lab.base, left, gained, lab.captions) | success()
