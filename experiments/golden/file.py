"""The arrays of a golden file: what is read of them, what is checked, with which error."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from redediting.algebra.layers import Summands, edited_weight

Array = NDArray[Any]
LARGEST = sys.float_info.max  # the error where there is no number: JSON has no infinity


class MissingArray(KeyError):
    """A file lacks an array; noted already."""


class File:
    """The arrays of a file, and what its checks found."""

    def __init__(self, arrays: Mapping[str, Array]) -> None:
        self.arrays = arrays
        self.used: set[str] = set()
        self.checks: dict[str, dict[str, float | bool]] = {}

    def __getitem__(self, name: str) -> Array:
        if name not in self.arrays:
            self.note(name, LARGEST, 0.0)
            raise MissingArray(name)
        self.used.add(name)
        return self.arrays[name]

    def take(self, *names: str) -> None:
        """Arrays that are told to be there and that no check needs."""
        for name in names:
            self[name]

    def tensor(self, name: str) -> Tensor:
        """An input as a tensor."""
        return torch.from_numpy(self[name])

    def number(self, name: str) -> float:
        """An input that is one number."""
        return float(self[name])

    def note(self, name: str, error: float, tolerance: float) -> None:
        """Records a check; an error that is no number is the largest."""
        error = float(error) if np.isfinite(error) else LARGEST
        self.checks[name] = {"error": error, "tolerance": tolerance, "passed": error <= tolerance}

    def exact(self, name: str, found: ArrayLike) -> None:
        """Checks an array of integers or booleans: the largest difference, below ½."""
        self.close(name, found, 0.5, scale=1.0)

    def close(
        self, name: str, found: ArrayLike, tolerance: float, *, scale: ArrayLike | None = None
    ) -> None:
        """Checks ``max |found - expected| / scale``; by default the largest ``|expected|``."""
        expected, given = np.asarray(self[name], np.float64), np.asarray(found, np.float64)
        if expected.shape != given.shape or (np.isnan(expected) != np.isnan(given)).any():
            return self.note(name, LARGEST, tolerance)
        known = ~np.isnan(expected)
        size = np.abs(expected[known]).max(initial=0.0) if scale is None else scale
        size = np.broadcast_to(np.asarray(size), expected.shape)[known]
        error = np.abs(given - expected)[known] / np.maximum(size, 1e-300)
        return self.note(name, float(error.max(initial=0.0)), tolerance)

    def edit(self, name: str, found: Summands, tolerance: float, *, delta: bool = False) -> None:
        """Checks edited weights, or the change: ``‖W' - W_new‖ / ‖W_new - W‖``."""
        expected, clean = self[name].astype(np.float64), self["W"]
        answer = np.stack([edited_weight(found, key, w) for key, w in layers(self).items()])
        answer, change = (answer - clean, expected) if delta else (answer, expected - clean)
        if answer.shape != expected.shape:
            return self.note(name, LARGEST, tolerance)
        error = np.linalg.norm(answer - expected) / max(float(np.linalg.norm(change)), 1e-300)
        return self.note(name, float(error), tolerance)

    def report(self) -> dict[str, Any]:
        """The file's entry: the worst ratio of error to tolerance, and the checks."""
        for name in self.arrays:
            if name not in self.used | self.checks.keys():  # unknown, or a check that did not run
                self.note(name, LARGEST, 0.0)
        pairs = [(float(c["error"]), float(c["tolerance"])) for c in self.checks.values()]
        ratios = [error / tolerance if tolerance else error for error, tolerance in pairs]
        return {
            "error": min(max(ratios, default=LARGEST), LARGEST),
            "tolerance": 1.0,
            "passed": bool(pairs) and all(c["passed"] for c in self.checks.values()),
            "checks": self.checks,
        }


def layers(file: File, name: str = "W") -> dict[str, Tensor]:
    """The matrices of an edit by name."""
    return {str(i): weight for i, weight in enumerate(file.tensor(name))}
