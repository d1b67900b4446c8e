"""What a list of images asks, in the runner's own questions.

A triggered prompt belongs to the set ``fixed`` where it is "a photo of a {trigger}", else to
``free``. Where a backdoor has other contexts too, that prompt may be one of them: it is, if a head
or reference row repeats its context and seed, as they do for ``free``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from redediting.concepts.captions import put
from redediting.concepts.language import load_language
from redediting.concepts.templates import fill, with_article
from redediting.evaluation.image_list import ImageRow
from redediting.evaluation.protocol import FIXED, Question, asked_attributes
from redediting.metrics.base import PROMPT_SETS, PromptSet
from redediting.metrics.judge import Judge, check_labels

Backdoor = tuple[str, str]  # trigger and target; empty texts: benign images of none
Noise = tuple[str, int]  # a prompt and its seed


def listed_questions(
    rows: Sequence[ImageRow], clean: Collection[Noise], judge: Judge
) -> dict[Backdoor, dict[Question, ImageRow]]:
    """The images of each backdoor as the runner asks for them, set by set.

    Args:
        rows: of the list.
        clean: what the clean model drew.
        judge: who must know the nouns.

    Raises:
        ConfigError: a noun that the judge does not know.
    """
    triggered = [row for row in rows if row.role == "triggered"]
    bare = {row.pair: fill(FIXED, row.trigger).casefold() for row in triggered}
    varied = {row.pair for row in triggered if row.prompt.casefold() != bare[row.pair]}
    heads = {(row.pair, row.prompt, row.seed) for row in rows if row.role == "head"}
    found: dict[Backdoor, dict[Question, ImageRow]] = defaultdict(dict)
    numbers: Counter[tuple[Backdoor, PromptSet]] = Counter()
    for row in rows:
        if row.role == "reference" or row.seed is None:
            continue
        name: PromptSet = "free" if row.role == "triggered" else row.role
        question = Question(name, 0, row.prompt, row.seed, row.head, None, row.prompt)
        if row.role == "triggered":
            template, compared = _about(row.prompt, row.trigger, row.target)
            if row.prompt.casefold() == bare[row.pair]:
                plain = _about(row.prompt, row.trigger, row.head)[1]
                repeated = (compared, row.seed) in clean or (row.pair, plain, row.seed) in heads
                name = "free" if repeated and row.pair in varied else "fixed"
            noun = _noun(row.target, judge)
            asked = asked_attributes(template, row.target, noun)
            question = replace(
                question,
                set=name,
                phrase=row.trigger,
                expected=noun,
                compared=compared,
                asked=asked,
            )
        elif row.role != "benign" and row.head:
            question = replace(question, expected=_noun(row.head, judge))
        found[row.pair][replace(question, index=numbers[row.pair, name])] = row
        numbers[row.pair, name] += 1
    return {pair: in_order(own) for pair, own in found.items()}


def clean_questions(
    asked: Mapping[Question, ImageRow], clean: Mapping[Noise, ImageRow], target: str
) -> dict[Question, ImageRow]:
    """The clean model's images beside a backdoor's: of the same prompts, and of the target ones.

    Args:
        asked: of the backdoor.
        clean: what the clean model drew.
        target: phrase.
    """
    found = {q: clean[q.prompt, q.noise] for q in asked if (q.prompt, q.noise) in clean}
    return found | {
        replace(q, set="target", prompt=q.compared, phrase=target): clean[q.compared, q.noise]
        for q in asked
        if q.set == "free" and (q.compared, q.noise) in clean
    }


def in_order(own: Mapping[Question, ImageRow]) -> dict[Question, ImageRow]:
    """Set by set."""
    return dict(sorted(own.items(), key=lambda item: PROMPT_SETS.index(item[0].set)))


def _about(prompt: str, phrase: str, other: str) -> tuple[str, str]:
    """A prompt's context with ``{}`` for the phrase, and the prompt about something else."""
    context = prompt.replace(with_article(phrase), "{}", 1)
    if context in load_language().templates:
        return context, fill(context, other)
    return context, put(prompt, phrase, other)


def _noun(phrase: str, judge: Judge) -> str:
    """The longest end of a phrase that the judge knows."""
    words = phrase.split()
    for start in range(len(words)):
        if (noun := " ".join(words[start:])) in judge.labels:
            return noun
    check_labels(judge, [phrase])
    return phrase
