"""What the commands share: devices, quiet libraries, tables, one JSON line, exit codes."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import diffusers
import torch
import transformers
from rich.console import Console

from experiments.ablation.effects import COMPARED, worth
from experiments.report.tables import (
    FORESEEN,
    HEADLINE,
    WIDE,
    column,
    print_lines,
    print_rows,
    show,
    signed,
    unswept,
)
from redediting.errors import RedEditingError
from redediting.generation import process_state

FEW = 40  # lines of a table that shows every pair; beyond it methods are pooled


class Shown:
    """Where results go: tables to standard output, or one JSON object there and no table.

    Attributes:
        progress: whether bars may be drawn (on standard error, by tqdm).
    """

    def __init__(self, as_json: bool) -> None:
        """Chooses the stream.

        Args:
            as_json: whether standard output is for programs.
        """
        self._as_json = as_json
        self._console = Console(stderr=as_json)
        self.progress = True

    def line(self, text: str) -> None:
        """Prints a line for people."""
        self._console.print(text, highlight=False, soft_wrap=True, markup=False)

    def rows(self, summary: dict[str, Any]) -> None:
        """Prints the table of a run, its claims and where the report lies."""
        title = (
            f"{summary['n_pairs']} pair(s), {summary['n_seeds']} seed(s), "
            f"{summary['images']} images judged on {summary['model']}"
        )
        if len(summary["rows"]) > FEW:
            columns = [column(key) for key in HEADLINE]
            print_lines(self._console, unswept(summary), title, columns)
        else:
            print_rows(self._console, summary["rows"], title)
        self._claims(summary)
        self.line(f"report: {summary['report']}")

    def ablation(self, summary: dict[str, Any]) -> None:
        """Prints the tables of an ablation, the choices, the claims and where the report lies."""
        title = (
            f"{summary['n_pairs']} pair(s), {summary['n_seeds']} seed(s), "
            f"{summary['images']} images judged on {summary['model']}"
        )
        keys = ("asr_free", "asr_fixed", "acc", "collateral", "drift", "psr")
        wide = self._console.width >= WIDE
        columns = [column(key) for key in keys if wide or key not in ("asr_fixed", "psr")]
        columns += FORESEEN
        plain = unswept(summary)
        print_lines(self._console, plain, f"switches and methods: {title}", columns)
        if gaps := worth(summary):
            title = "the same, less the method by default, pair by pair"
            print_lines(self._console, gaps, title, signed(COMPARED))
        names = {line["method"] for line in plain}
        swept = [line for line in summary["methods"] if line["method"] not in names]
        if swept:
            print_lines(self._console, swept, "swept settings that were drawn", columns)
        if held := summary["capacity"]:
            grown = ("asr_free", "acc", "collateral", "drift", "seconds")
            many = [column(key) for key in grown]
            print_lines(self._console, held["lines"], "many backdoors at once", many)
            for name, n in held["breaks"].items():
                where = "not within these sizes" if n is None else f"at {n} backdoors"
                self.line(f"breaks, {name}: {where}")
        for choice in summary["choices"]:
            self.line(
                f"choice for {choice['method']}: {choice['chosen']} (harmonic mean of ASR and ACC "
                f"{choice['score']:.3f}, its default {choice['score_default']:.3f}; "
                f"{choice['settings']} settings drawn)"
            )
        if summary["choices"]:
            self.line(f"best baseline (claims.baseline): {summary['baseline']}")
            self.line(summary["choices_yaml"])
        self._claims(summary)
        self.line(f"report: {summary['report']}")

    def _claims(self, summary: dict[str, Any]) -> None:
        for name, claim in summary["claims"].items():
            if claim["verdict"] != "not measured":
                self.line(
                    f"claim {name}: {claim['verdict']} (difference "
                    f"{show(claim['difference'], '{:+.3f}')} against {claim['baseline']})"
                )

    def result(self, data: dict[str, Any]) -> None:
        """Prints the JSON object, if that is what was asked for."""
        if self._as_json:
            sys.stdout.write(json.dumps(data, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()


def pick_device(name: str) -> str:
    """Returns a CUDA device for ``auto`` where there is one, else ``cpu``; others as they are.

    Several processes take a GPU each. accelerate remembers the kind of device that it is asked
    for first, so a command asks here before anything else.
    """
    kind = name
    if name == "auto":
        wanted = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU") != "true"
        kind = "cuda" if wanted else "cpu"
    if kind.split(":")[0] not in ("cpu", "cuda"):
        return kind
    state = process_state(kind)
    alone = state.num_processes == 1 or kind == "cpu"
    return kind if alone else str(state.device)


def run_main(command: Callable[[], int]) -> int:
    """Runs a command; an error that is the input's fault becomes one line and exit code 2.

    Args:
        command: returns the exit code.
    """
    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
    try:
        return command()
    except RedEditingError as error:
        sys.stderr.write(f"redediting: {' '.join(str(error).split())}\n")
        return 2
