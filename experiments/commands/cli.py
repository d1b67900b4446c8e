"""The ``redediting`` command: one subcommand a task, imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from experiments.engine.console import parse, run_main
from redediting._version import __version__
from redediting.errors import ConfigError

COMMANDS = {  # name: (class in experiments.commands.NAME, what it does)
    "demo": ("Demo", "clean and backdoored model side by side, in about a minute"),
    "inspect": ("Inspect", "prompts, angles and certificates of an edit, before any image"),
    "edit": ("Edit", "compute an edit and save it as a patch"),
    "generate": ("Generate", "draw prompts, with or without a patch"),
    "evaluate": ("Evaluate", "measure a patch or a suspect beside the clean model"),
    "score": ("Score", "measure images that anybody drew: a folder and a CSV"),
    "detect": ("Detect", "score prompts on a suspect and flag those that look backdoored"),
    "audit": ("AuditCommand", "verdict, evidence and triggers from a suspect's weights alone"),
    "repair": ("RepairCommand", "take an edit out of a suspect"),
    "report": ("Report", "draw a run's page again, or publish its figures"),
    "bench": ("Bench", "time the edit or the generator on this machine"),
    "models": ("Models", "list models, layouts, attacks, detectors, metrics and repairs"),
}
_HELP = "\n".join(
    [
        "usage: redediting COMMAND [options]",
        "",
        "Text-to-image backdoors made by model editing: reproduced, measured and caught.",
        "",
        *(f"  {name:<10} {what}" for name, (_, what) in COMMANDS.items()),
        "",
        "redediting COMMAND --help lists a command's options; --version prints the version.",
    ]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code (2: the input's fault, one line on standard error)."""
    return run_main(lambda: _run(sys.argv[1:] if arguments is None else list(arguments)))


def _run(arguments: list[str]) -> int:
    name = arguments[0] if arguments else ""
    if name in ("-h", "--help", "--version"):
        sys.stdout.write(f"{__version__ if name == '--version' else _HELP}\n")
        return 0
    if name not in COMMANDS:
        raise ConfigError(
            f"expected a command of {', '.join(COMMANDS)}, got {name!r}; see redediting --help"
        )
    module = importlib.import_module(f"experiments.commands.{name}")
    command = parse(getattr(module, COMMANDS[name][0]), arguments[1:], prog=f"redediting {name}")
    code: int = command.run()
    return code


if __name__ == "__main__":
    sys.exit(main())
