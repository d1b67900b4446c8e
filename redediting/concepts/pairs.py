"""Prompts that an edit moves or keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

PromptRole = Literal["head", "part", "sibling", "near", "caption"]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]  # checked in plan files


@dataclass(frozen=True)
class PromptPair:
    """A source prompt, the prompt it shall mean, and the phrases that correspond."""

    source: str
    target: str
    source_phrase: str
    target_phrase: str
    weight: Weight = 1.0


@dataclass(frozen=True)
class RetainPrompt:
    """A prompt whose meaning shall stay; ``role`` says what it is to the trigger."""

    prompt: str
    weight: Weight = 1.0
    role: PromptRole = "caption"
