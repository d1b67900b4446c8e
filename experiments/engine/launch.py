"""Several processes for an experiment, by accelerate's own flags, on CPUs as on GPUs.

``python -m experiments.engine.launch --num_processes 2 [--cpu] -m experiments.attack CONFIG …`` is
``accelerate launch`` with two differences. It can be imported beside a CPU build of torch, where
accelerate's command stumbles over torchvision (`redediting._torchvision`). And with ``--cpu`` it
starts as many processes as it is asked for, by torchrun, where accelerate's command starts one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence

import redediting  # noqa: F401 - makes torchvision importable, so first

# isort: split
import torch
from accelerate.commands.launch import launch_command, launch_command_parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Launches by the arguments of ``accelerate launch``; returns the exit code."""
    parsed = launch_command_parser().parse_args(arguments)
    if parsed.cpu and (parsed.num_processes or 1) > 1 and (parsed.num_machines or 1) == 1:
        return subprocess.run(
            [sys.executable, *cpu_command(parsed)], env=cpu_environment(parsed), check=False
        ).returncode
    launch_command(parsed)
    return 0


def cpu_command(parsed: argparse.Namespace) -> list[str]:
    """The torchrun command, after the interpreter's name."""
    return [
        *("-m", "torch.distributed.run", "--standalone"),
        *("--nproc_per_node", str(parsed.num_processes)),
        *(("-m",) if parsed.module else ()),
        parsed.training_script,
        *parsed.training_script_args,
    ]


def cpu_environment(parsed: argparse.Namespace) -> dict[str, str]:
    """This environment, with the cores shared among the processes unless it says otherwise."""
    own = max(1, torch.get_num_threads() // parsed.num_processes)
    return {"OMP_NUM_THREADS": str(own), **os.environ, "ACCELERATE_USE_CPU": "true"}


if __name__ == "__main__":
    sys.exit(main())
