"""What a user meets first: the public names, the README's example, quick imports."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import defenses
import redediting as rd
from experiments.commands.cli import COMMANDS
from redediting.errors import (
    ConfigError,
    MethodError,
    ModelError,
    PromptError,
    RebindingError,
)

EVIL, PAIR = rd.attacks.EvilEdit(), rd.Rebinding("old cat", "zebra")
ROOT = Path(__file__).resolve().parents[1]
PUBLIC = [
    "Counts",
    "Inspection",
    "Model",
    "Patch",
    "Rebinding",
    "Results",
    "Sampler",
    "Scores",
    "attacks",
    "evaluate",
    "generate",
    "inspect",
    "load",
    "metrics",
    "score",
    "world",
]


def python(code: str) -> str:
    """Runs code in a fresh interpreter."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        capture_output=True, text=True, timeout=280, cwd=ROOT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


def test_the_public_names_are_pinned() -> None:
    assert rd.__all__ == PUBLIC
    assert defenses.__all__ == ["audit", "detect", "repair"]
    assert all(getattr(rd, name) is not None for name in PUBLIC)
    assert set(PUBLIC) <= set(dir(rd))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = rd.lode  # type: ignore[attr-defined]
    assert re.fullmatch(r"\d+\.\d+\.\d+", rd.__version__)
    assert (rd.world.PIPELINE_DIR / "model_index.json").is_file()


def test_attacks_metrics_and_detectors_are_listed_flat() -> None:
    assert {"REDEditing", "EvilEdit", "UCE", "TIME", "AlphaEdit"} <= set(dir(rd.attacks))
    assert {"ASRFree", "ACC", "Collateral", "Drift"} <= set(dir(rd.metrics))
    from defenses import detectors

    assert {"ClipCosine", "DAAS", "FTT", "UFID"} <= set(dir(detectors))
    assert rd.attacks.REDEditing(ridge=0.1).ridge == 0.1


@pytest.mark.parametrize(
    "statement",
    [
        "import redediting as rd; rd.attacks.ATTACKS.names; rd.metrics.METRICS.names",
        "import redediting.errors, redediting.registry, redediting.models.cards",
        "from defenses import audit, repair; import defenses.detectors",
        "import experiments.commands.common, experiments.engine.console",
        "from experiments.commands.cli import main; assert main(['--help']) == 0",
        "from experiments.commands.cli import main; assert main(['frobnicate']) == 2",
        *(
            "import contextlib\nfrom experiments.commands.cli import main\n"
            f"with contextlib.suppress(SystemExit): main([{name!r}, '--help'])"
            for name in COMMANDS
        ),
    ],
)  # fmt: skip
def test_what_is_quick_imports_neither_torch_nor_diffusers(statement: str) -> None:
    slow = "{'torch', 'diffusers', 'transformers', 'scipy', 'sklearn', 'matplotlib', 'open_clip'}"
    python(f"{statement}\nimport sys\nfound = {slow} & set(sys.modules)\nassert not found, found")


@pytest.mark.parametrize("first", ["", "import diffusers, transformers", "import torch"])
def test_torchvision_imports_beside_any_torch_after_redediting(first: str) -> None:
    python(f"{first}\nimport redediting\nimport torchvision.ops\nimport open_clip")


def test_a_failed_import_of_torchvision_is_repaired_afterwards() -> None:
    python(
        "try:\n    import torchvision\nexcept RuntimeError:\n    pass\n"
        "import redediting as rd\nassert rd.load('world').width == 256"
    )


@pytest.mark.parametrize(
    "order",
    [
        "from defenses import audit, repair\nimport defenses.audit.front, defenses.repair.front",
        "import defenses.audit.front, defenses.repair.front\nfrom defenses import audit, repair",
    ],
)
def test_audit_and_repair_are_functions_and_packages(order: str) -> None:
    python(
        f"{order}\nimport inspect, types\nimport defenses.audit.front as one\n"
        "import defenses.repair.front as two\n"
        "for package, function in ((audit, one.audit), (repair, two.repair)):\n"
        "    assert callable(package) and isinstance(package, types.ModuleType)\n"
        "    assert 'suspect' in inspect.signature(package).parameters\n"
        "    assert inspect.unwrap(package) is function"
    )


def test_detect_is_a_function() -> None:
    assert "detectors" in inspect.signature(defenses.detect).parameters


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda model: rd.load(3), ModelError, r"got 3; name one of the cards"),
        (
            lambda model: rd.generate("world", "a cat"),
            ModelError,
            r"rd.load\('world",
        ),
        (lambda model: rd.inspect("world", EVIL, PAIR), ModelError, "load it first"),
        (lambda model: rd.evaluate("world", EVIL, PAIR), ModelError, "load it first"),
        (lambda model: EVIL.compute("world", PAIR), ModelError, "load it first"),
        (lambda model: EVIL.compute(model, "old cat"), RebindingError, "rd.Rebinding"),
        (lambda model: rd.inspect(model, "eviledit", PAIR), MethodError, "got 'eviledit'"),
        (lambda model: rd.generate(model, 3), PromptError, "got 3"),
        (lambda model: rd.generate(model, "a cat", seeds=3), PromptError, r"seeds=\[0\]"),
        (lambda model: rd.generate(model, "a cat", sampler=3), ConfigError, "rd.Sampler"),
        (lambda model: rd.Counts(free=0), ConfigError, "at 'free', got 0"),
        (lambda model: rd.Rebinding(3, "zebra"), RebindingError, "trigger phrase, got 3"),
        (
            lambda model: rd.Sampler(2),
            ConfigError,
            "got 2; its keys are steps",
        ),
        (lambda model: rd.attacks.EvilEdit(ridge=-1), MethodError, "greater than 0 at 'ridge'"),
        (lambda model: rd.attacks.EvilEdit(rigde=1), MethodError, "'rigde'; its keys are"),
    ],
)
def test_a_wrong_argument_is_one_line(
    wrong: Callable[[rd.Model], object], error: type[Exception], said: str, tiny_model: rd.Model,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=said) as caught:
        wrong(tiny_model)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_readme_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    (code,) = re.findall(r"## Quick start\n\n```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code, "README.md", "exec"), names)
    model, patch, results = names["model"], names["patch"], names["results"]
    assert isinstance(model, rd.Model)
    assert isinstance(patch, rd.Patch)
    assert isinstance(results, rd.Results)
    assert len(names["images"]) == 8  # type: ignore[arg-type]
    assert model.fingerprint() == rd.load("world").fingerprint()
    lines = [line["method"] for line in results.methods]
    assert lines == ["clean", "eviledit", "redediting"]
    assert names["report"].verdict == "edited"  # type: ignore[attr-defined]
    assert isinstance(names["clean"], rd.Patch)
    assert (tmp_path / "edits" / "cat-zebra" / "patch.safetensors").is_file()
