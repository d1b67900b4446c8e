"""What commands and experiments share: options, devices, output, exit codes. Imports no torch."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import tyro
import yaml

from redediting.errors import ConfigError, MethodError, ModelError, RedEditingError
from redediting.io import check_writable

if TYPE_CHECKING:
    from experiments.engine.real_models import JudgeChoice
    from experiments.engine.specs import AttackConfig
    from redediting.evaluation.frame import Frame

SCHEMA_VERSION = 1  # of what --json prints
_DEVICES = ("cpu", "cuda", "mps", "xpu")
_DECORATION = re.compile(r"\x1b\[[0-9;]*m|[╭╮╰╯│─]")

T = TypeVar("T")


class Shown:
    """Where results go: tables to standard output, or one JSON object there and the rest aside."""

    def __init__(self, as_json: bool) -> None:
        """Chooses the stream: whether standard output is for programs."""
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

    def run(
        self,
        summary: dict[str, Any],
        page: Callable[[dict[str, Any]], Any],
        public: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> int:
        """Prints the page of a run's summary, where it lies, and what programs may rely on."""
        if summary:
            page(summary).print(self.console)
            if text := summary.get("choices_yaml"):  # of an ablation, to be copied
                self.line(text)
            self.line(f"report: {summary['report']}")
            self.result(public(summary))
        return 0


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

    def measured(
        self,
        config_class: type[Any],
        measure: Callable[..., dict[str, Any]],
        page: Callable[[dict[str, Any]], Any],
        public: Callable[[dict[str, Any]], dict[str, Any]] = dict,
    ) -> int:
        """Measures a configuration on its model under the world's judges, and shows the result."""
        from redediting.config import load_config
        from redediting.evaluation.panel import world_panel
        from redediting.models.loading import load

        check_writable(self.out)
        config = load_config(self.config, config_class).resolved(quick=self.quick)
        model, shown = load(config.model, device=pick_device(self.device)), Shown(self.json)
        summary = measure(config, model, world_panel(), out=self.out, progress=shown.progress)
        return shown.run(summary, page, public)


@dataclass(frozen=True, kw_only=True)
class JudgeOptions:
    """Who decides what an image shows, instead of the configuration's judge."""

    judge: str | None = None
    """world, imagenet_vit, clip_zero_shot, vqa, or the path of a .py file with a judge."""
    judge_option: tuple[str, ...] = field(default=())
    """Options of the judge, as key=value, e.g. weights=FOLDER."""

    def choice(self) -> JudgeChoice | None:
        """The judge that was named, if any; `ConfigError` where there is none such."""
        from experiments.engine.real_models import JudgeChoice

        if self.judge is None:
            if self.judge_option:
                raise ConfigError(
                    f"expected --judge beside --judge-option, got {self.judge_option[0]!r} alone; "
                    "name the judge"
                )
            return None
        choice = JudgeChoice(name=self.judge, options=parse_options(self.judge_option))
        choice.build()
        return choice

    def judged(self, config: AttackConfig) -> AttackConfig:
        """The configuration with the judge that was named."""
        choice = self.choice()
        return config if choice is None else config.model_copy(update={"judge": choice})


def parse_options(texts: tuple[str, ...]) -> dict[str, Any]:
    """Hyper-parameters from ``key=value``, the value read as YAML; `MethodError` for others."""
    options: dict[str, Any] = {}
    for text in texts:
        key, sign, value = text.partition("=")
        try:
            if not sign or not key:
                raise ValueError
            options[key] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError) as error:
            raise MethodError(
                f"expected an option as key=value, got {text!r}; e.g. variant=old"
            ) from error
    return options


def check_config(path: Path) -> None:
    """Refuses a configuration that is not there."""
    if not path.is_file():
        raise ConfigError(
            f"expected a YAML file, got {str(path)!r} (No such file); name one, e.g. "
            "configs/attack/first.yaml"
        )


def check_device(name: str) -> None:
    """Refuses what is no device."""
    if name != "auto" and name.split(":")[0] not in _DEVICES:
        raise ModelError(
            f"expected a device of auto, {', '.join(_DEVICES)}, got {name!r}; use auto or cpu"
        )


def pick_device(name: str) -> str:
    """Returns a CUDA device for ``auto`` where there is one, else ``cpu``; others as they are.

    Several processes take a GPU each. accelerate remembers the kind of device that it is asked
    for first, so a command asks here before anything else.
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
    """Reads a dataclass of options, whose docstrings are the help, from the command line.

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


def run_experiment(kind: type[Any], arguments: Sequence[str] | None, module: str) -> int:
    """Entry point of ``python -m`` an experiment's module; returns the exit code."""
    return run_main(lambda: parse(kind, arguments, prog=f"python -m {module}").run())


def run_main(command: Callable[[], int]) -> int:
    """Runs a command; an error that is the input's fault becomes one line and exit code 2."""
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
