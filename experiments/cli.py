"""The ``redediting`` command: one subcommand a task, each in ``experiments/commands``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import tyro

from experiments.commands.audit import AuditCommand
from experiments.commands.bench import Bench
from experiments.commands.demo import Demo
from experiments.commands.detect import Detect
from experiments.commands.edit import Edit
from experiments.commands.evaluate import Evaluate
from experiments.commands.generate import Generate
from experiments.commands.inspect import Inspect
from experiments.commands.repair import RepairCommand
from experiments.commands.report import Report
from experiments.console import run_main

Audit = Annotated[AuditCommand, tyro.conf.subcommand("audit")]
Repair = Annotated[RepairCommand, tyro.conf.subcommand("repair")]
Command = Demo | Inspect | Edit | Generate | Evaluate | Detect | Audit | Repair | Report | Bench


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code (2: the input's fault, one line on standard error).

    Args:
        arguments: of the command line, without the program's name; None takes the process's.
    """
    return run_main(lambda: _parse(arguments).run())


def _parse(arguments: Sequence[str] | None) -> Command:
    return tyro.cli(
        Command,
        args=arguments,
        prog="redediting",
        description="A lab for training-free text-to-image backdoors: make, measure, catch.",
        config=(tyro.conf.FlagCreatePairsOff,),
    )


if __name__ == "__main__":
    sys.exit(main())
