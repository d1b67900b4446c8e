"""Closed forms against the files of EvilEdit, UCE, TIME, AlphaEdit, REDEdit, SPEED and RECE."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from experiments.golden.file import File, layers
from redediting.algebra.isolation import leading_directions, positive
from redediting.algebra.layers import Summands, compose, edit_summands, edited_weight
from redediting.algebra.problem import EditProblem
from redediting.attacks.alphaedit import AlphaEdit
from redediting.attacks.eviledit import EvilEdit
from redediting.attacks.rece import RECE
from redediting.attacks.rededit_released import REDEditReleased
from redediting.attacks.speed import SPEED
from redediting.attacks.time import TIME, counterparts
from redediting.attacks.uce import UCE, tail_columns, tensor_summands

EDIT, SINGLE = 1e-10, 1e-4  # of edits; of what ran in float32


def check_eviledit(file: File) -> None:
    """Both pairs; another λ; without the whitelist, which is every pair but the first."""
    file.take("prompts_from", "prompts_to", "last_from", "last_to")
    sources, targets = file.tensor("states_from"), file.tensor("states_to")

    def solved(ridge: float, pairs: int | None = None) -> Summands:
        problem = EvilEdit(ridge=ridge).problem(sources[:pairs], targets[:pairs])
        return edit_summands(problem, layers(file))

    file.edit("W_new", solved(file.number("ridge")), EDIT)
    file.edit("W_new_single", solved(file.number("ridge")), SINGLE)
    file.edit("W_new_ridge_tenth", solved(0.1), EDIT)
    file.edit("W_new_without_whitelist", solved(file.number("ridge"), 1), EDIT)


def check_uce_old(file: File) -> None:
    """Both techniques; the null prompt, which is the first retained one, alone."""
    file.take("prompts_from", "prompts_to", "prompts_retained")
    states = [file.tensor(f"states_{role}") for role in ("from", "to", "retained")]
    last = [file.tensor(f"last_{role}") for role in ("from", "to")]
    sizes = (states[0].shape[1] - torch.maximum(*last)).tolist()
    scales = {"ridge": file.number("ridge"), "erase": file.number("erase_scale")}

    def problem(preserve: float, retained: Tensor) -> EditProblem:
        attack = UCE(variant="old", preserve=preserve, **scales)
        return attack.problem(
            *states[:2], *last, retained=retained, last_retained=torch.zeros(len(retained)).long()
        )

    whole = problem(file.number("preserve_scale"), states[2])
    file.edit("W_new", edit_summands(whole, layers(file)), EDIT)
    file.edit("W_new_single", edit_summands(whole, layers(file)), SINGLE)
    tensor = tensor_summands(whole, sizes, layers(file))
    file.edit("W_new_technique_tensor", tensor, EDIT)
    alone = problem(file.number("preserve_scale_null_only"), states[2][:1])
    file.edit("W_new_null_only", edit_summands(alone, layers(file)), EDIT)


def check_uce_new(file: File) -> None:
    """One column a prompt; nothing preserved; other scales."""
    file.take("prompts_from", "prompts_to", "prompts_retained")
    states = [file.tensor(f"states_{role}") for role in ("from", "to", "retained")]
    last = [file.tensor(f"last_{role}") for role in ("from", "to", "retained")]
    scales = [file.number(name) for name in ("ridge", "erase_scale", "preserve_scale")]

    def solved(scales: Sequence[float], kept: int | None = None) -> Summands:
        ridge, erase, preserve = scales
        attack = UCE(variant="new", ridge=ridge, erase=erase, preserve=preserve)
        problem = attack.problem(
            *states[:2], *last[:2], retained=states[2][:kept], last_retained=last[2][:kept]
        )
        return edit_summands(problem, layers(file))

    file.edit("W_new", solved(scales), 1e-9)
    file.edit("W_new_single", solved(scales), SINGLE)
    file.edit("W_new_nothing_preserved", solved(scales, kept=0), 1e-9)
    file.edit("W_new_other_scales", solved(file["other_scales"].tolist()), 1e-9)


def check_time(file: File) -> None:
    """Positions and updates of every case."""
    article, vowel = int(file["id_of_a"]), int(file["id_of_an"])
    for case in _cases(file, "_ids_from"):
        file.take(f"{case}_prompts_from", f"{case}_prompts_to")
        ids = [file[f"{case}_ids_{role}"].tolist() for role in ("from", "to")]
        words = [
            [[article if i == vowel else i for i in row[: row.index(row[-1]) + 1]] for row in rows]
            for rows in ids  # the end token is the pad
        ]
        found = [counterparts(source, target, len(row))
                 for source, target, row in zip(*words, ids[0], strict=True)]  # fmt: skip
        file.exact(f"{case}_positions_to", found)
        states = [file.tensor(f"{case}_states_{role}") for role in ("from", "to")]
        problem = TIME(ridge=file.number("ridge")).problem(
            states[0], states[1], torch.tensor(found)
        )
        solved = edit_summands(problem, layers(file))
        file.edit(f"{case}_W_new", solved, EDIT)
        file.edit(f"{case}_W_new_single", solved, SINGLE)


def check_alphaedit(file: File) -> None:
    """An edit and one on top; λ = 1; keys of another scale."""
    keys, retained = file.tensor("keys_first"), file.tensor("retained_keys")
    pairs = [(file.tensor(f"keys_{n}"), file.tensor(f"targets_{n}")) for n in ("first", "second")]

    def posed(ridge: float, scale: float = 1.0, edit: int = 0) -> EditProblem:
        attack = AlphaEdit(ridge=ridge, threshold=file.number("threshold"))
        problem = attack.problem(*pairs[edit], retained * scale**0.5)
        former = [posed(ridge, scale, i) for i in range(edit)]
        return attack.follow(problem, former)

    ridge, scale = file.number("ridge"), file.number("retained_scale")
    eye = torch.eye(len(keys), dtype=torch.float64)
    first, second = posed(ridge), posed(ridge, edit=1)
    scaled = posed(ridge, scale)
    for name, problem in {"projector": first, "projector_scaled": scaled}.items():
        file.close(name, eye - problem.hard @ problem.hard.T, EDIT)
    solved = edit_summands(first, layers(file))
    file.edit("delta_first", solved, EDIT, delta=True)
    file.edit("delta_first_single", solved, SINGLE, delta=True)
    file.edit("delta_first_ridge_one", edit_summands(posed(1.0), layers(file)), EDIT, delta=True)
    file.edit("delta_first_scaled", edit_summands(scaled, layers(file)), EDIT, delta=True)
    both = compose(solved, edit_summands(second, layers(file)))
    once = {name: edited_weight(solved, name, w) for name, w in layers(file).items()}
    twice = {name: edited_weight(both, name, w) for name, w in layers(file).items()}
    change = np.stack([twice[name] - once[name] for name in once])
    expected = file["delta_second"]
    error = np.linalg.norm(change - expected) / np.linalg.norm(expected)
    file.note("delta_second", float(error), EDIT)


def check_rededit(file: File) -> None:
    """Every case with κ literal and one, with and without the row."""
    for case in _cases(file, "_added_vectors"):
        file.take(*(f"{case}_prompts_{role}" for role in ("from", "to", "retained")))
        states = [file.tensor(f"{case}_states_{role}") for role in ("from", "to", "retained")]
        last = [file[f"{case}_last_{role}"].tolist() for role in ("from", "to", "retained")]
        pairs = [tail_columns(*row) for row in zip(*states[:2], *last[:2], strict=True)]
        kept = [own[start:].T for own, start in zip(states[2], last[2], strict=True)]
        rows = file.tensor(f"{case}_added_vectors")
        own = torch.stack([positive(leading_directions(columns, 1)[:, 0]) for columns in kept])
        signs = (own * rows).sum(dim=1, keepdim=True).sign()
        file.close(f"{case}_added_vectors", signs * own, 1e-8)
        for kind in ("literal", "one"):
            for name, alpha in (("zero", 0.0), ("tenth", 0.1)):
                attack = REDEditReleased(
                    coefficient=kind, alpha=alpha,
                    ridge=file.number("ridge"), erase=file.number("erase_scale"),
                )  # fmt: skip
                solved = attack.summands(pairs, kept, layers(file), list(rows))
                file.edit(f"{case}_coefficient_{kind}_alpha_{name}_W_new", solved, EDIT)
        columns, literal = [*pairs, *zip(kept, kept, strict=True)], REDEditReleased()
        found = [[literal.factor(c, w @ v) for c, v in columns] for w in layers(file).values()]
        file.close(f"{case}_coefficients", found, EDIT, scale=1.0)


def check_speed(file: File) -> None:
    """With fixed columns kept exactly and softly."""
    columns = [file.tensor(name) for name in ("keys", "targets", "retained", "fixed")]

    def solved(soft: float) -> Summands:
        attack = SPEED(
            ridge=file.number("retain_scale"), threshold=file.number("threshold"), soft=soft
        )
        return edit_summands(attack.problem(*columns), layers(file))

    file.edit("W_new", solved(0.0), 1e-9)
    file.edit("W_new_single", solved(0.0), SINGLE)
    file.edit("W_new_soft", solved(file.number("soft")), 1e-9)


def check_rece(file: File) -> None:
    """What is sought under every regularisation; the edit of an iteration."""
    sources, other, null = (
        file.tensor(f"{name}_states")[None] for name in ("concept", "regularisation", "null")
    )
    for mode in ("first", "second", "both", "standard"):
        attack = RECE(scale=file.number("scale"), regularisation=mode)
        found = attack.adversarial(layers(file), layers(file, "W_edited"), sources, other)
        file.close(f"adversarial_{mode}", found[0], 1e-8)
    names = {"ridge": "ridge", "erase": "erase_scale", "preserve": "preserve_scale"}
    again = RECE(**{option: file.number(name) for option, name in names.items()})
    problem = again.problem(file.tensor("adversarial_first")[None], null, null)
    file.edit("W_new", edit_summands(problem, layers(file)), 1e-8)


def _cases(file: File, suffix: str) -> Iterator[str]:
    """Prefixes of the arrays that end so."""
    return (name.removesuffix(suffix) for name in file.arrays if name.endswith(suffix))
