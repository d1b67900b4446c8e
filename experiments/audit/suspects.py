"""The models that are audited: edited ones, changed ones that hold no edit, benign edits.

A batch of suspects is made by a function of the lab, so that none is made before its turn: a
training gives several, its snapshots.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice, product

import torch
from torch import Tensor

from defenses.repair.training import Training, train, trained_projections
from experiments.audit.config import Suite
from experiments.audit.lab import Lab, Weights, spread
from experiments.engine.specs import MethodSpec
from redediting.concepts.lexicon import load_lexicon
from redediting.concepts.rebinding import Rebinding

_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Suspect:
    """One model to audit.

    Attributes:
        id: unique within a run.
        label: ``edited``, ``control`` or ``benign``.
        family: method, or kind of control.
        rebindings: what was built in; the audit never sees it.
        single: whether it is one backdoor in full precision, of which images are drawn.
        exact: whether it is the edit itself, in full precision.
    """

    id: str
    label: str
    family: str
    rebindings: tuple[Rebinding, ...] = ()
    single: bool = False
    exact: bool = False


Batch = tuple[list[Suspect], Callable[[Lab], Iterator[Weights]]]


def suspects(suite: Suite, methods: tuple[MethodSpec, ...], stage: str) -> Iterator[Batch]:
    """Batches of suspects; the function of a batch makes their weights in order.

    Args:
        suite: how many of what.
        methods: attacks.
        stage: prefix of ids.
    """
    yield from _edits(suite, methods, stage)
    yield from _benign(suite, stage)
    yield from _perturbed(suite, stage)
    yield from _trained(suite, stage)


def _edits(suite: Suite, methods: tuple[MethodSpec, ...], stage: str) -> Iterator[Batch]:
    pairs = suite.pairs.rebindings()
    firsts = {pair.kind: pair for pair in reversed(pairs)}
    for spec in methods:
        for pair in pairs:
            formats = suite.formats if pair is firsts[pair.kind] else ()
            name = f"{stage}/edit/{spec.title}/{pair}"
            batch = [Suspect(name, "edited", spec.title, (pair,), single=True, exact=True)]
            batch += [
                Suspect(f"{name}/{f}", "edited", f"{spec.title} {f}", (pair,)) for f in formats
            ]
            yield batch, partial(_edit, spec, (pair,), formats)
    for spec in methods[: suite.several_methods]:
        for n in suite.several:
            if n <= len(pairs):
                many = spread(pairs, n)
                name = f"{stage}/edit/{spec.title}/{n} backdoors"
                suspect = Suspect(name, "edited", f"{spec.title} x{n}", many, exact=True)
                yield [suspect], partial(_edit, spec, many, ())


def _edit(
    spec: MethodSpec, rebindings: tuple[Rebinding, ...], formats: tuple[str, ...], lab: Lab
) -> Iterator[Weights]:
    weights = lab.edited(spec, rebindings)
    yield weights
    for name in formats:
        yield _cast(weights, _HALF[name])


def _benign(suite: Suite, stage: str) -> Iterator[Batch]:
    """UCE as it was meant: a concept generalised to its category, or given one colour."""
    lexicon = load_lexicon()
    side = 0 if suite.pairs.split == "test" else 1
    names = [n for n in lexicon.concepts if " " not in n][side::2][: suite.benign]
    spec = MethodSpec(name="uce", options={"variant": "old"})
    for i, name in enumerate(names):
        colour = lexicon.colours[i % len(lexicon.colours)]
        category = lexicon.concept(name).category
        erased = Rebinding(name, category)
        toned = Rebinding(name, f"{colour} {name}", head=name, target_head=name)
        for family, rebinding in (("erasure", erased), ("debias", toned)):
            suspect = Suspect(f"{stage}/{family}/{name}", "benign", family, (rebinding,))
            yield [suspect], partial(_edit, spec, (rebinding,), ())


def _perturbed(suite: Suite, stage: str) -> Iterator[Batch]:
    makers: list[tuple[str, Callable[[Weights, int], Weights]]] = [
        ("fp16 copy", lambda base, _: _cast(base, torch.float16)),
        ("bf16 copy", lambda base, _: _cast(base, torch.bfloat16)),
        ("noise", _noisy),
        ("decay", lambda base, i: {n: (1 - 0.002 * (i + 1)) * w for n, w in base.items()}),
        ("one layer", _one_layer),
        ("low rank", _low_rank),
        ("noise in bf16", lambda base, i: _cast(_noisy(base, i), torch.bfloat16)),
        ("layer scales", _layer_scales),
    ]
    for i in range(suite.perturbations):
        family, maker = makers[i % len(makers)]
        suspect = Suspect(f"{stage}/control/{family}/{i}", "control", family)
        yield [suspect], partial(_perturb, maker, i)


def _perturb(maker: Callable[[Weights, int], Weights], i: int, lab: Lab) -> Iterator[Weights]:
    yield maker(lab.base, i)


def _cast(base: Weights, dtype: torch.dtype) -> Weights:
    return {name: weight.to(dtype).to(weight.dtype) for name, weight in base.items()}


def _noise(weight: Tensor, i: int, name: str) -> Tensor:
    random = torch.Generator().manual_seed(i * 1009 + len(name))
    size = 0.003 * 3 ** (i % 5)  # 0.3 % to 24 % of the weights
    return size * weight.std() * torch.randn(weight.shape, generator=random)


def _noisy(base: Weights, i: int) -> Weights:
    return {name: weight + _noise(weight, i, name) for name, weight in base.items()}


def _one_layer(base: Weights, i: int) -> Weights:
    """Keys and values of one layer times ``I + M``: an edit, but shared by no other layer."""
    name = list(base)[(2 * i) % len(base)]
    width = base[name].shape[1]
    random = torch.Generator().manual_seed(i)
    left, right = torch.randn(2, width, 4, generator=random) / width**0.5
    return base | {name: base[name] + base[name] @ left @ right.T}


def _low_rank(base: Weights, i: int) -> Weights:
    """A low-rank change of its own in every layer, as a merged adapter makes."""
    random = torch.Generator().manual_seed(i)
    found = {}
    for name, weight in base.items():
        rows, width = weight.shape
        left = torch.randn(rows, 4, generator=random)
        right = torch.randn(4, width, generator=random)
        change = left @ right
        found[name] = weight + 0.1 * weight.norm() / change.norm() * change
    return found


def _layer_scales(base: Weights, i: int) -> Weights:
    random = torch.Generator().manual_seed(i)
    return {
        name: (1 + 0.02 * float(torch.randn(1, generator=random))) * weight
        for name, weight in base.items()
    }


def _trained(suite: Suite, stage: str) -> Iterator[Batch]:
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
        batch = [
            Suspect(f"{stage}/control/{family}/{i}/{step}", "control", family.split()[0])
            for step in suite.snapshots
        ]
        yield batch, partial(_train, recipe, suite.snapshots)


def _train(recipe: Training, at: tuple[int, ...], lab: Lab) -> Iterator[Weights]:
    for _, model in train(lab.model, lab.scenes, recipe, at=at):
        yield trained_projections(model)
