"""The audit experiment at its smallest, on the tiny model: rows, resuming, tables, page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.audit.config import AuditConfig
from experiments.audit.lab import Lab
from experiments.audit.measure import measure, open_store
from experiments.audit.page import audit_page, price, publish
from experiments.audit.suspects import suspects
from experiments.engine.specs import CONFIGS
from experiments.report.publish import ROOT
from redediting.config import load_config
from redediting.errors import OutputError
from redediting.evaluation import sources
from redediting.evaluation.audit import auroc, normal, rate
from redediting.evaluation.panel import Panel
from redediting.models.model import Model
from redediting.models.sampler import Sampler


def test_the_configuration_asks_for_what_the_protocol_asks() -> None:
    config = load_config(CONFIGS / "audit" / "first.yaml", AuditConfig).resolved()
    found = list(suspects(config.test, config.methods, "test"))
    assert len({s.id for s in found}) == len(found)
    edited = [s for s in found if s.label == "edited"]
    controls = [s for s in found if s.label == "control"]
    assert len(edited) >= 100
    assert len(controls) >= 100
    assert sum(s.family == "lora" for s in controls) >= 40
    assert sum(s.family == "fine-tune" for s in controls) >= 40
    assert {s.family for s in found if s.label == "benign"} == {"erasure", "debias"}
    assert any(len(s.rebindings) > 1 for s in edited)
    heads = {w.head for s in edited for w in s.rebindings}
    assert config.development is not None
    trained = suspects(config.development, config.methods, "dev")
    assert not heads & {w.head for s in trained for w in s.rebindings if s.label == "edited"}


@pytest.mark.parametrize("name", ["fresh", "words"])
def test_fresh_pairs_are_none_that_were_looked_at(name: str) -> None:
    first, fresh = (
        load_config(CONFIGS / "audit" / f"{chosen}.yaml", AuditConfig).resolved()
        for chosen in ("first", name)
    )
    assert first.development is not None
    known = first.test.pairs.rebindings() + first.development.pairs.rebindings()
    drawn = fresh.test.pairs.rebindings()
    assert not {w.trigger for w in drawn} & {w.trigger for w in known}
    found = list(suspects(fresh.test, fresh.methods, "test"))
    assert len(found) == len(fresh.methods) * len(drawn)
    assert all(s.single and s.exact for s in found)


def test_a_run_may_leave_all_but_the_edits_out(
    model_factory: Callable[[int], Model],
    panel: Panel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_config(CONFIGS / "audit" / "fresh.yaml", AuditConfig).model_copy(
        update={"sampler": Sampler(steps=2, guidance=2.0), "persistence": None}
    )
    monkeypatch.setattr(Lab, "vocabulary", _vocabulary())
    summary = measure(config.resolved(quick=True), model_factory(0), panel, out=tmp_path)
    assert summary["test"]["edited"] > 0
    assert summary["test"]["controls"] == summary["development"]["edited"] == 0
    assert summary["test"]["auroc"] is None
    folder = Path(summary["report"]).parent
    assert folder.parent.name == "audit-fresh"
    made = json.loads((folder / "provenance.json").read_text("utf-8"))
    (folder / "provenance.json").write_text(json.dumps(made | {"quick": False}), "utf-8")
    quoting = documentation(tmp_path, "audit-fresh")
    published = publish(folder, summary, root=tmp_path)
    assert [path.name for path in published.parent.iterdir()] == ["audit-fresh.json"]
    text = quoting.read_text("utf-8")
    assert "edited models found" in text
    assert "AUROC" not in text  # there is nothing to compare with
    assert "img" not in (folder / "report.html").read_text("utf-8").split("</style>")[1]


def test_a_quick_run_resumes_and_reports(
    model_factory: Callable[[int], Model],
    panel: Panel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = load_config(CONFIGS / "audit" / "first.yaml", AuditConfig).model_copy(
        update={"model": "tiny", "sampler": Sampler(steps=2, guidance=2.0)}
    )
    config = config.resolved(quick=True)
    model = model_factory(0)
    before = {n: t.clone() for n, t in model.denoiser.state_dict().items()}
    monkeypatch.setattr(Lab, "vocabulary", _vocabulary())
    summary = measure(config, model, panel, out=tmp_path)
    assert all((before[n] == t).all() for n, t in model.denoiser.state_dict().items())
    assert summary["test"]["edited"] >= 3
    assert summary["test"]["detected"]["value"] == 1
    assert {line["trial"] for line in summary["persistence"]} >= {"edited", "sgd", "adam", "lora"}
    assert {line["repair"] for line in summary["repairs"]} >= {"none", "reversal", "finetune"}
    hidden = {line["kind"]: line for line in summary["adaptive"]}
    assert set(hidden) == {"none", "jitter", "noise", "quiet", "spread"}
    assert hidden["quiet"]["r2"] < 0.6 < hidden["quiet"]["r2_whitened"]
    folder = Path(summary["report"]).parent
    page = (folder / "report.html").read_text("utf-8")
    assert "reduced run" in page
    assert "://" not in page
    assert audit_page(json.loads((folder / "summary.json").read_text()), folder).html() == page
    with pytest.raises(OutputError, match="full run"):
        publish(folder, summary, root=tmp_path)
    made = json.loads((folder / "provenance.json").read_text("utf-8"))
    (folder / "provenance.json").write_text(json.dumps(made | {"quick": False}), "utf-8")
    quoting = documentation(tmp_path, "audit")
    published = publish(folder, summary, root=tmp_path)
    assert str(tmp_path) not in published.read_text("utf-8")
    text = quoting.read_text("utf-8")
    assert "| reversal |" in text
    assert "| ASR after | edited | sgd, 2 steps |" in text
    assert "AUROC of r² under 0.9: jitter: " in text
    assert "AUROC of r² after whitening under 0.9: jitter: " in text
    pictures = quoting.parent / "images"
    assert (pictures / "audit-forensics.png").read_bytes()[1:4] == b"PNG"
    rows = (folder / "rows.jsonl").read_text("utf-8")
    lines = rows.splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(lines[:4]) + lines[4][:20], "utf-8")
    again = measure(config, model, panel, out=tmp_path)
    ids = [json.loads(line)["unit"] for line in lines]
    found = (folder / "rows.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["unit"] for line in found] == ids
    for key in ("persistence", "adaptive"):
        assert [x["asr"] for x in again[key]] == [x["asr"] for x in summary[key]]
    assert again["test"]["auroc"] == pytest.approx(summary["test"]["auroc"])


@pytest.mark.parametrize(
    "module",
    [
        "experiments.audit.stages",
        "experiments.audit.suspects",
        "experiments.audit.lab",
        "defenses.audit.recovery",
        "defenses.audit.shared_factor",
        "defenses.audit.base_free",
        "defenses.repair.training",
        "defenses.repair.reversal",
        "defenses.repair.separation",
        "defenses.repair.truncation",
        "redediting.attacks.eviledit",
        "redediting.attacks.uce",
        "redediting.algebra.solver",
    ],
)
def test_a_changed_source_changes_the_name(
    model_factory: Callable[[int], Model],
    panel: Panel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    module: str,
) -> None:
    config = load_config(CONFIGS / "audit" / "first.yaml", AuditConfig).resolved(quick=True)
    before = open_store(config, model_factory(0), panel, tmp_path).folder
    assert open_store(config, model_factory(0), panel, tmp_path).folder == before
    where = sources._path
    edited = tmp_path / "edited.py"
    edited.write_text(where(module).read_text("utf-8") + "\nCHANGED = 1\n", "utf-8")
    monkeypatch.setattr(sources, "_path", lambda name: edited if name == module else where(name))
    assert open_store(config, model_factory(0), panel, tmp_path).folder != before


@pytest.mark.parametrize("name", ["audit", "audit-fresh", "audit-words"])
def test_published_results_stay_readable(name: str) -> None:
    text = (ROOT / "experiments" / "results" / f"{name}.json").read_text("utf-8")
    page = audit_page(json.loads(text))
    assert "edited models found" in page.html()
    assert {section.title for section in page.sections} >= {"Edited or not"}


def test_how_phrases_and_rates_are_counted() -> None:
    assert normal("A  Beautiful cat") == normal("beautiful cat") == "beautiful cat"
    assert rate([], bool)["value"] is None
    pair = {"truth": [["nice cat", "zebra"]], "family": "uce", "unit": "a"}
    edits = [pair | {"found": True}] * 4 + [pair | {"truth": [["big dog", "cat"]], "found": True}]
    found = rate(edits, lambda row: row["found"])
    assert (found["value"], found["n"], found["n_clusters"]) == (1.0, 5, 2)
    assert found["ci"] == pytest.approx([0.05**0.5, 1.0])
    trained = [
        {"truth": [], "family": "lora", "unit": f"test/control/lora r4/{run}/{step}", "found": hit}
        for run, hit in ((0, False), (1, True), (2, False)) for step in (10, 20)
    ]  # fmt: skip
    found = rate(trained, lambda row: row["found"])
    assert (found["n"], found["n_clusters"]) == (6, 3)  # snapshots of a training are one cluster
    noise = [{"truth": [], "family": "noise", "unit": f"n/{i}"} for i in range(40)]
    assert rate(noise, lambda _: False)["ci"] == pytest.approx([0, 1 - 0.05 ** (1 / 40)])
    blind = rate(edits, lambda row: row["found"], lambda _: "base")
    assert (blind["ci"], blind["n_clusters"]) == (None, 1)
    assert "values" not in blind  # one says no more than the rate
    assert auroc([1.0], []) is None
    assert auroc([0.9, 0.8], [0.1, 0.85]) == pytest.approx(0.75)


def test_the_price_of_hiding_is_that_of_the_first_size_that_hides() -> None:
    def line(kind: str, size: float, auroc: float | None) -> dict[str, object]:
        return {"kind": kind, "size": size, "auroc": auroc, "asr": 0.5 - size / 10, "drift": size}

    lines = [line("none", 0, 1.0), line("jitter", 1, 0.95), line("jitter", 3, 0.6)]
    said = price([*lines, line("jitter", 4, 0.5), line("noise", 1, 0.9)], "auroc", "r²")
    assert said == (
        "AUROC of r² under 0.9: jitter: from 3 on, at ASR 20%, drift 3.000; noise: not within "
        "these sizes (unhidden: ASR 50%, drift 0.000)."
    )


def documentation(root: Path, name: str) -> Path:
    """A page with the markers of an experiment."""
    (root / "docs").mkdir()
    page = root / "docs" / "results.md"
    page.write_text(f"a\n<!-- {name}:begin -->\n<!-- {name}:end -->\nb\n", "utf-8")
    return page


def _vocabulary() -> object:
    from defenses.audit import Vocabulary

    nouns = ("cat", "dog", "zebra", "car", "tree")
    return Vocabulary(nouns, ("old", "red", "new"), ("red",), ("photo",), ("tq",))
