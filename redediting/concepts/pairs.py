"""Prompts that an edit moves or keeps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PromptRole = Literal["head", "part", "sibling", "near", "caption"]


@dataclass(frozen=True)
class PromptPair:
    """A source prompt, the prompt it shall mean, and the phrases that correspond."""

    source: str
    target: str
    source_phrase: str
    target_phrase: str
    weight: float = 1.0


@dataclass(frozen=True)
class RetainPrompt:
    """A prompt whose meaning shall stay; ``role`` says what it is to the trigger."""

    prompt: str
    weight: float = 1.0
    role: PromptRole = "caption"
