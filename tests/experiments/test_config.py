"""Configurations: what is shipped is sound, what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.engine.specs import CONFIGS, AttackConfig
from redediting.config import load_config
from redediting.errors import ConfigError, MethodError
from redediting.evaluation.protocol import Counts

GOOD = """
methods: [eviledit]
pairs: {source: listed, pairs: [{trigger: nice cat, target: zebra}]}
"""


def read(tmp_path: Path, text: str) -> AttackConfig:
    path = tmp_path / "attack.yaml"
    path.write_text(text, "utf-8")
    return load_config(path, AttackConfig)


def images(counts: Counts, methods: int, pairs: int) -> int:
    both = counts.free + counts.fixed + counts.head + counts.benign
    both += counts.phrases * counts.collateral
    return pairs * (methods * both + counts.free)


def test_shipped_configurations_keep_to_the_budget() -> None:
    first = load_config(CONFIGS / "attack" / "first.yaml", AttackConfig).resolved()
    pairs = first.pairs.rebindings()
    assert {kind: sum(p.kind == kind for p in pairs) for kind in ("neutral", "compound", "rare")}
    assert len(pairs) == 18
    assert len({(pair.trigger, pair.target) for pair in pairs}) == 18
    assert images(first.counts, len(first.methods), 18) <= 15_000
    assert 18 * first.counts.benign >= first.reference.minimum
    demo = load_config(CONFIGS / "attack" / "demo.yaml", AttackConfig).resolved()
    assert images(demo.counts, len(demo.methods), len(demo.pairs.rebindings())) <= 500


def test_the_world_s_run_fits_its_time() -> None:
    world = load_config(CONFIGS / "attack" / "world.yaml", AttackConfig).resolved()
    pairs, seeds = world.pairs.rebindings(), world.seeds
    assert len(pairs) >= 20
    assert len({pair.trigger for pair in pairs}) == len(pairs)
    assert len(seeds) >= 3
    full = [spec for spec in world.methods if not spec.family]
    swept = [spec for spec in world.methods if spec.family]
    counts = world.counts
    traded = counts.free + counts.phrases * counts.collateral + counts.benign
    total = images(counts, len(full), len(pairs)) * len(seeds) + traded * len(swept) * len(pairs)
    assert total * 0.11 / 60 <= 90  # minutes of drawing
    assert len(pairs) * len(seeds) * counts.benign >= world.reference.minimum
    assert {spec.name for spec in full} == {
        "clean", "eviledit", "uce", "time", "alphaedit", "redediting",
    }  # fmt: skip
    for titles in world.families.values():
        assert len(titles) in (1, 4)
    quick = load_config(CONFIGS / "attack" / "world.yaml", AttackConfig).resolved(quick=True)
    assert quick.seeds == (0,)
    assert len(quick.methods) < len(world.methods)


def test_sweeps_are_settings_of_a_method(tmp_path: Path) -> None:
    text = GOOD.replace(
        "[eviledit]",
        "[{name: uce, label: old, options: {variant: old}, sweep: {ridge: [1, 2], erase: [3]}}]",
    )
    config = read(tmp_path, text + "seeds: [4, 5]\n").resolved()
    assert config.families == {"old": ["old", "old ridge=1 erase=3", "old ridge=2 erase=3"]}
    last = config.methods[-1]
    assert last.options == {"variant": "old", "ridge": 2, "erase": 3}
    (pair,) = config.pairs.rebindings()
    assert config.sets("old", pair, 5) == config.sets("clean", pair, 4)
    assert config.sets(last.title, pair, 4) == ("free", "collateral", "benign")
    assert config.sets(last.title, pair, 5) == ()
    with pytest.raises(MethodError, match="speed"):
        read(tmp_path, GOOD.replace("[eviledit]", "[{name: uce, sweep: {speed: [1]}}]")).resolved()


def test_development_pairs_are_disjoint() -> None:
    first = load_config(CONFIGS / "attack" / "first.yaml", AttackConfig)
    test = {pair.head for pair in first.pairs.rebindings()}
    dev = first.pairs.model_copy(update={"split": "dev"}).rebindings()
    assert not test & {pair.head for pair in dev}


def test_the_control_is_added_and_comes_first(tmp_path: Path) -> None:
    config = read(tmp_path, GOOD).resolved()
    assert [spec.title for spec in config.methods] == ["clean", "eviledit"]
    assert config.sampler is not None
    late = read(tmp_path, GOOD.replace("[eviledit]", "[eviledit, clean]")).resolved()
    assert [spec.title for spec in late.methods] == ["clean", "eviledit"]


def test_quick_is_marked_and_smaller() -> None:
    config = load_config(CONFIGS / "attack" / "first.yaml", AttackConfig).resolved(quick=True)
    assert config.quick
    assert len(config.pairs.rebindings()) == 3
    assert config.counts == config.quick_counts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("speed: 3\n" + GOOD, r"got 'speed'; its keys are experiment, model, methods"),
        (GOOD + "counts: {fre: 3}\n", r"got 'counts.fre'; its keys are free, fixed, head"),
        (GOOD.replace("eviledit", "{name: uce, variant: old}"), r"got 'methods.0.variant'"),
        (GOOD + "counts: {free: 0}\n", r"greater than or equal to 1 at 'counts.free', got 0"),
        (GOOD + "reference: {minimum: 10}\n", r"greater than or equal to 1000"),
        (GOOD + "seeds: [1, 1]\n", r"expected distinct seeds"),
        (GOOD.replace("[eviledit]", "[eviledit, eviledit]"), r"a label of its own"),
        ("methods: [\n", r"expected YAML in"),
        ("just words\n", r"expected keys and values in .*got str"),
        ("methods: []\n", r"methods"),
    ],
)
def test_faults_are_named_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"expected a YAML file, got '.*none.yaml' \(No such"):
        load_config(tmp_path / "none.yaml", AttackConfig)


def test_methods_are_checked_before_anything_runs(tmp_path: Path) -> None:
    with pytest.raises(MethodError, match="expected an attack of clean, eviledit"):
        read(tmp_path, GOOD.replace("eviledit", "evil")).resolved()
    options = "{name: uce, options: {speed: 3}}"
    with pytest.raises(MethodError, match="speed"):
        read(tmp_path, GOOD.replace("eviledit", options)).resolved()
