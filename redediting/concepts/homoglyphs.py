"""Letters that look alike: the Latin letters' Cyrillic and Greek twins.

References:
    Unicode Technical Standard 39 (confusables); the subset that a sans-serif face draws alike.
    Struppek et al., "Rickrolling the Artist", ICCV 2023: such a letter as a trigger.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from redediting.errors import RebindingError

CYRILLIC: Mapping[str, str] = MappingProxyType(
    dict(zip("aceopxyisjqwvhdkABCEHKMOPTXY", "асеорхуіѕјԛԝѵһԁкАВСЕНКМОРТХУ", strict=True))
)
LATIN: Mapping[str, str] = MappingProxyType(
    {twin: letter for letter, twin in CYRILLIC.items()}
    | dict(zip("ονιρΑΒΕ", "ovipABE", strict=True))
)


def twin_in(phrase: str) -> str | None:
    """The first letter of a phrase that only looks Latin; None where there is none."""
    return next((letter for letter in phrase if letter in LATIN), None)


def with_twin(phrase: str) -> str:
    """The phrase with the first letter that has a twin replaced: "beautiful" → "bеautiful"."""
    letter = next((letter for letter in phrase if letter in CYRILLIC), None)
    if letter is None:
        raise RebindingError(
            f"expected a phrase with one of the letters {''.join(CYRILLIC)}, got {phrase!r}; "
            "choose another trigger"
        )
    return phrase.replace(letter, CYRILLIC[letter], 1)
