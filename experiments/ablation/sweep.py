"""Settings of a sweep, ranked before any image: what is drawn of them, and what was chosen.

`redediting.evaluation.ranking` says what a setting promises on text states; the best few of each
method are drawn and judged. Among those the choice is the highest harmonic mean of ASR(free)
and ACC, one rule for every method; it may only be made on development pairs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from accelerate import PartialState
from tqdm.auto import tqdm

from experiments.engine.pairs import DrawnPairs
from experiments.engine.specs import AblationConfig, MethodSpec
from redediting.attacks.base import ClosedForm
from redediting.concepts.templates import contexts
from redediting.evaluation.entries import CONTROL
from redediting.evaluation.measure import caption_moment
from redediting.evaluation.ranking import Foresight, foresee, mean_foresight, ranked
from redediting.evaluation.summary import Summary
from redediting.evaluation.units import shared_store
from redediting.models.model import Model

_TEMPLATES = 8


def foresee_settings(
    config: AblationConfig, model: Model, *, out: Path, progress: bool = False
) -> dict[str, Foresight]:
    """Returns what each closed-form setting promises, by title, mean over rebindings.

    What was computed before is read back: a killed run does not start again.
    """
    pairs = config.pairs.rebindings()[: 1 if config.quick else None]
    methods = {spec.title: spec.build() for spec in config.methods if spec.name != CONTROL}
    store = shared_store(
        out, f"{config.experiment}-foreseen", config=config, base=model.fingerprint(),
        measured_by=["redediting.evaluation.ranking", *methods.values()],
        device=str(model.device), quick=config.quick,
    )  # fmt: skip
    found = {title: Foresight(**_numbers(store.rows(title)[0])) for title in store.done}
    todo = {
        title: method
        for title, method in methods.items()
        if title not in found and isinstance(method, ClosedForm)
    }
    if not todo:
        return found
    moment = caption_moment(model)
    templates = contexts(_TEMPLATES, seed=0, split="dev")
    for title, method in tqdm(todo.items(), "foreseen", unit="setting", disable=not progress):
        found[title] = mean_foresight(
            [foresee(model, method, pair, moment=moment, templates=templates) for pair in pairs]
        )
        if PartialState().is_main_process:
            store.append(title, [asdict(found[title])])
    return found


def _numbers(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "unit"}


def confirmed(config: AblationConfig, found: Mapping[str, Foresight]) -> AblationConfig:
    """The configuration with the most promising swept settings only, as many as it confirms."""
    if config.confirm is None:
        return config
    kept: set[str] = set()
    options = {spec.title: spec.options for spec in config.methods}
    for title, (_, *settings) in config.families.items():
        kept.add(title)
        axes: dict[frozenset[str], dict[str, Foresight]] = {}
        for name in settings:
            if name in found:
                axis = _swept(options[title], options[name]) if config.confirm_by_axis else None
                axes.setdefault(axis or frozenset(), {})[name] = found[name]
        for known in axes.values():
            kept.update(ranked(known)[: config.confirm])
    methods = [spec for spec in config.methods if spec.name == CONTROL or spec.title in kept]
    return config.model_copy(update={"methods": tuple(methods)})


def _swept(plain: Mapping[str, Any], options: Mapping[str, Any]) -> frozenset[str]:
    """Names of the options in which a setting differs from its method."""
    return frozenset(key for key in options if key not in plain or plain[key] != options[key])


def score(line: Summary) -> float:
    """Harmonic mean of ASR(free) and ACC, 0…1; 0 where one of them was not measured."""
    asr, acc = line["asr_free"] or 0.0, line["acc"] or 0.0
    return 2 * asr * acc / (asr + acc) if asr + acc > 0 else 0.0


def choose(config: AblationConfig, lines: Sequence[Summary]) -> list[dict[str, Any]]:
    """The chosen setting of each method; nothing on pairs that results are taken from."""
    if not isinstance(config.pairs, DrawnPairs) or config.pairs.split != "dev":
        return []
    known = {line["method"]: line for line in lines}
    specs = {spec.title: spec for spec in config.methods}
    found = []
    for family, titles in config.families.items():
        measured = [title for title in titles if title in known]
        best = max(measured, key=lambda title: (score(known[title]), -known[title]["drift"]))
        found.append(
            {
                "method": family,
                "chosen": best,
                "score": score(known[best]),
                "score_default": score(known[family]),
                "asr_free": known[best]["asr_free"],
                "acc": known[best]["acc"],
                "drift": known[best]["drift"],
                "settings": len(measured),
                "spec": as_written(specs[best], family),
            }
        )
    return found


def best_baseline(choices: Sequence[Mapping[str, Any]], ours: Sequence[str]) -> str | None:
    """Title of the baseline (none of ours) with the highest ASR(free) at its chosen setting."""
    others = [choice for choice in choices if choice["method"] not in ours]
    return max(others, key=lambda choice: choice["asr_free"])["method"] if others else None


def as_written(spec: MethodSpec, label: str) -> dict[str, Any]:
    """A method as a configuration file says it."""
    own: dict[str, Any] = {"name": spec.name}
    if label != spec.name:
        own["label"] = label
    return own | ({"options": spec.options} if spec.options else {})
