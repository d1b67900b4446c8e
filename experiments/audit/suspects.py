"""The models that are audited: edited ones, changed ones that hold no edit, benign edits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, product

import torch

from defenses.audit.challenges import PERTURBED, Weights
from defenses.repair.training import Training
from experiments.audit.config import Suite
from experiments.audit.lab import Lab
from experiments.engine.specs import MethodSpec
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.rebinding import Rebinding

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
_MANY = 6  # methods, the first ones, that build in several backdoors too


@dataclass(frozen=True)
class Suspect:
    """One model to audit; its weights are made when it is its turn."""

    id: str  # unique within a run
    label: str  # edited, control or benign
    family: str  # method, or kind of control
    make: Callable[[Lab], Weights]
    rebindings: tuple[Rebinding, ...] = ()  # what was built in; the audit never sees it
    single: bool = False  # one backdoor in full precision, of which images are drawn
    exact: bool = False  # the edit itself, in full precision


def suspects(suite: Suite, methods: Sequence[MethodSpec], stage: str) -> Iterator[Suspect]:
    """Edits, benign edits, perturbations and trainings; the stage is the prefix of their ids."""
    yield from _edits(suite, methods, f"{stage}/edit")
    yield from _benign(suite, stage)
    for i, (family, make) in enumerate(islice(cycle(PERTURBED.items()), suite.perturbations)):
        made = partial(_perturbed, make, i)
        yield Suspect(f"{stage}/control/{family}/{i}", "control", family, made)
    yield from _trained(suite, f"{stage}/control")


def spread(pairs: Sequence[Rebinding], n: int) -> tuple[Rebinding, ...]:
    """At most n pairs at equal distances in their order, which is by kind of trigger."""
    return tuple(pairs[:: max(1, len(pairs) // n)][:n])


def _edits(suite: Suite, methods: Sequence[MethodSpec], prefix: str) -> Iterator[Suspect]:
    pairs = suite.pairs.rebindings()
    firsts = {pair.kind: pair for pair in reversed(pairs)}
    for spec in methods:
        for pair in pairs:
            name, own = f"{prefix}/{spec.title}/{pair}", (pair,)
            edit = partial(Lab.edited, spec=spec, rebindings=own)
            yield Suspect(name, "edited", spec.title, edit, own, single=True, exact=True)
            for form in suite.formats if pair is firsts[pair.kind] else ():
                copied = partial(edit, dtype=_HALF[form])
                yield Suspect(f"{name}/{form}", "edited", f"{spec.title} {form}", copied, own)
    for spec, n in product(methods[:_MANY], suite.several):
        if n <= len(pairs):
            many = spread(pairs, n)
            name, edit = (
                f"{prefix}/{spec.title}/{n} backdoors",
                partial(Lab.edited, spec=spec, rebindings=many),
            )
            yield Suspect(name, "edited", f"{spec.title} x{n}", edit, many, exact=True)


def _benign(suite: Suite, stage: str) -> Iterator[Suspect]:
    """UCE as it was meant: a concept generalised to its category, or given one colour."""
    lexicon = load_lexicon()
    side = 0 if suite.pairs.split == "test" else 1
    names = [n for n in lexicon.concepts if " " not in n][side::2][: suite.benign]
    spec = MethodSpec(name="uce", options={"variant": "old"})
    for name, colour in zip(names, cycle(lexicon.colours), strict=False):
        erased = Rebinding(name, lexicon.concept(name).category)
        toned = Rebinding(name, f"{colour} {name}", head=name, target_head=name)
        for family, pair in (("erasure", erased), ("debias", toned)):
            edit = partial(Lab.edited, spec=spec, rebindings=(pair,))
            yield Suspect(f"{stage}/{family}/{name}", "benign", family, edit, (pair,))


def _perturbed(make: Callable[[Weights, int], Weights], i: int, lab: Lab) -> Weights:
    return make(lab.base, i)


def _trained(suite: Suite, prefix: str) -> Iterator[Suspect]:
    steps = suite.snapshots[-1] if suite.snapshots else 1
    loras = product((4, 8, 2, 16), (1e-3, 1e-4, 5e-3))
    tunes = [("adam", 1e-3), ("sgd", 0.1), ("adam", 1e-4), ("sgd", 1.0), ("adam", 3e-4)]
    recipes = [
        (f"lora r{rank}", Training(steps=steps, lr=lr, rank=rank, batch=8, seed=i))
        for i, (rank, lr) in enumerate(islice(cycle(loras), suite.loras))
    ]
    for i, (optimizer, lr) in enumerate(islice(cycle(tunes), suite.finetunes)):
        scope = "text" if i % 2 else "all"
        tune = {"steps": steps, "lr": lr, "optimizer": optimizer, "scope": scope, "batch": 8}
        recipes.append((f"fine-tune {optimizer}", Training.model_validate(tune | {"seed": i})))
    for i, (family, recipe) in enumerate(recipes):
        for step in suite.snapshots:
            make = partial(Lab.trained, recipe=recipe, at=suite.snapshots, step=step)
            yield Suspect(f"{prefix}/{family}/{i}/{step}", "control", family.split()[0], make)
