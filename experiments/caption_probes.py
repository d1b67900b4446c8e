"""What is asked of a real model about a pair: the prompt sets of `experiments.probes` on captions.

The head noun's captions carry the sets ``free``, ``head`` and ``target``: the trigger, the noun
itself or the target stands in the same place, with the same noise. Benign captions hold no head
noun; no object is expected of them, so they count for drift, CLIP score and FID alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from experiments.engine.specs import Counts
from experiments.probes import Probe
from experiments.rows import Set
from redediting.concepts.captions import containing, put, sample
from redediting.concepts.plan import collateral_prompts
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts, fill

_ROOM = 10_000  # noises set apart for each prompt set of a pair
_FIXED = "a photo of {}"


def caption_probes(
    pair: Rebinding,
    captions: Sequence[str],
    *,
    position: int,
    pairs: int,
    seed: int,
    counts: Counts,
) -> list[Probe]:
    """Returns everything that is asked about a pair, set by set, as `experiments.probes` does.

    Args:
        pair: the rebinding.
        captions: the pool.
        position: of the pair among all of the run.
        pairs: how many pairs the run has; benign captions are dealt out among them.
        seed: of the run.
        counts: images a set.

    Raises:
        PromptError: no caption has the head noun.
    """
    number = seed * 1000 + position
    base = number * 10 * _ROOM
    drawn = sample(containing(captions, pair.head), max(counts.free, counts.head), seed=number)

    def inserted(name: Set, n: int, phrase: str, expected: str) -> Iterator[Probe]:
        aim = pair.target if name == "free" else phrase
        for i, (caption, _) in enumerate(drawn[:n]):
            prompt, compared = (put(caption, pair.head, words) for words in (phrase, aim))
            yield Probe(name, i, prompt, base + i, phrase, expected, compared)

    found = [*inserted("free", counts.free, pair.trigger, pair.target_head)]
    for i in range(counts.fixed):
        prompt, aim = fill(_FIXED, pair.trigger), fill(_FIXED, pair.target)
        noise = base + _ROOM + i
        found.append(Probe("fixed", i, prompt, noise, pair.trigger, pair.target_head, aim))
    found += inserted("head", counts.head, pair.head, pair.head)
    templates = contexts(max(1, counts.collateral), seed=number, split="test")
    index = 0
    for phrase, expected, role in islice(collateral_prompts(pair), counts.phrases):
        for template in templates[: counts.collateral]:
            prompt = fill(template, phrase)
            noise = base + 2 * _ROOM + index
            found.append(Probe("collateral", index, prompt, noise, phrase, expected, prompt, role))
            index += 1
    words = {pair.head.casefold()}
    plain = [text for text in captions if not words & set(text.casefold().strip(".").split())]
    dealt = sample(plain, pairs * counts.benign, seed=seed)
    own = dealt[position * counts.benign : (position + 1) * counts.benign]
    for i, (caption, _) in enumerate(own):
        noise = base + 3 * _ROOM + i
        found.append(Probe("benign", i, caption, noise, "", None, caption, "caption"))
    found += inserted("target", counts.free, pair.target, pair.target_head)
    return found
