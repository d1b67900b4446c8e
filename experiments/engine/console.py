"""What commands and experiments share: options, devices, output, exit codes. Imports no torch."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro

from redediting.errors import ConfigError, ModelError, RedEditingError
from redediting.io import check_writable

if TYPE_CHECKING:
    from redediting.evaluation.frame import Frame
    from redediting.models.model import Model

SCHEMA_VERSION = 1  # of what --json prints
_DEVICES = ("cpu", "cuda", "mps", "xpu")
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]")

T = TypeVar("T")


class Shown:
    """Where results go: tables to standard output, or one JSON object there and the rest aside.

    Attributes:
        progress: whether bars may be drawn (on standard error, by tqdm).
    """

    def __init__(self, as_json: bool) -> None:
        """Chooses the stream.

        Args:
            as_json: whether standard output is for programs.
        """
        from rich.console import Console

        self._as_json = as_json
        self.console = Console(stderr=as_json)
        self.progress = True

    def line(self, text: str) -> None:
        """Prints a line for people."""
        self.console.print(text, highlight=False, soft_wrap=True, markup=False)

    def frame(self, frame: Frame) -> None:
        """Prints a table for people."""
        frame.print(self.console)

    def result(self, data: dict[str, Any]) -> None:
        """Prints the JSON object, if that is what was asked for."""
        if self._as_json:
            found = data | {"schema_version": data.get("schema_version", SCHEMA_VERSION)}
            sys.stdout.write(json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()


@dataclass(frozen=True)
class Experiment:
    """Options of an experiment."""

    config: tyro.conf.Positional[Path]
    """A YAML file below configs/."""
    quick: bool = False
    """A few pairs and images: shows that it works, may not be published."""
    out: Path = Path("runs")
    """Where run folders lie."""
    device: str = "auto"
    """auto, cpu or cuda."""
    json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print one JSON object as the last line."""

    def __post_init__(self) -> None:
        check_config(self.config)

    def start(self, model: str) -> Started:
        """Checks the output folder and loads the model.

        Raises:
            OutputError: the folder cannot be written.
            ModelError: no such model.
        """
        check_writable(self.out)
        device = pick_device(self.device)
        from redediting.models.loading import load

        return Started(load(model, device=device), device, Shown(self.json))


@dataclass(frozen=True)
class Started:
    """A loaded model, its device, and where results are shown."""

    model: Model
    device: str
    shown: Shown


def check_config(path: Path) -> None:
    """Refuses a configuration that is not there.

    Raises:
        ConfigError: no such file.
    """
    if not path.is_file():
        raise ConfigError(
            f"expected a YAML file, got {str(path)!r} (No such file); name one, e.g. "
            "configs/attack/first.yaml"
        )


def check_device(name: str) -> None:
    """Refuses what is no device.

    Raises:
        ModelError: an unknown kind of device.
    """
    if name != "auto" and name.split(":")[0] not in _DEVICES:
        raise ModelError(
            f"expected a device of auto, {', '.join(_DEVICES)}, got {name!r}; use auto or cpu"
        )


def pick_device(name: str) -> str:
    """Returns a CUDA device for ``auto`` where there is one, else ``cpu``; others as they are.

    Several processes take a GPU each. accelerate remembers the kind of device that it is asked
    for first, so a command asks here before anything else.

    Raises:
        ModelError: an unknown kind of device.
    """
    check_device(name)
    import torch

    from redediting.generation import process_state

    kind = name
    if name == "auto":
        wanted = torch.cuda.is_available() and os.environ.get("ACCELERATE_USE_CPU") != "true"
        kind = "cuda" if wanted else "cpu"
    if kind.split(":")[0] not in ("cpu", "cuda"):
        return kind
    state = process_state(kind)
    alone = state.num_processes == 1 or kind == "cpu"
    return kind if alone else str(state.device)


def parse(kind: type[T], arguments: Sequence[str] | None, *, prog: str) -> T:
    """Reads a dataclass of options from the command line.

    Args:
        kind: the dataclass; its docstring and those of its fields are the help.
        arguments: without the program's name; None takes the process's.
        prog: the program's name in messages.

    Raises:
        ConfigError: what tyro finds wrong, in one line.
    """
    said = io.StringIO()
    try:
        with redirect_stderr(said):
            return tyro.cli(
                kind, args=arguments, prog=prog, config=(tyro.conf.FlagCreatePairsOff,)
            )
    except SystemExit as stop:
        if not stop.code:
            raise  # help was asked for
    raise ConfigError(" ".join(_DECORATION.sub(" ", said.getvalue()).split()))


def run_main(command: Callable[[], int]) -> int:
    """Runs a command; an error that is the input's fault becomes one line and exit code 2.

    Args:
        command: returns the exit code.
    """
    for library in ("DIFFUSERS", "TRANSFORMERS"):
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    try:
        return command()
    except BrokenPipeError:  # e.g. `redediting models | head -1`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except (RedEditingError, OSError, MemoryError) as error:
        said = str(error) or type(error).__name__
    except RuntimeError as error:
        if type(error).__name__ != "OutOfMemoryError":  # torch's, which may not be imported
            raise
        said = f"expected more memory ({error}); draw fewer images at once or use another device"
    except KeyboardInterrupt:
        return 130
    sys.stderr.write(f"redediting: {' '.join(said.split())}\n")
    return 2
