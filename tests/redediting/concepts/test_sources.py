"""Where values come from: tables, nearest concepts, WordNet."""

import itertools
from pathlib import Path

import pytest

from redediting.concepts.lexicon import (
    load_everyday,
    load_lexicon,
    load_modifiers,
    load_places,
)
from redediting.concepts.relation_sources import (
    FirstSource,
    LexiconSource,
    NeighbourSource,
    WordNetSource,
    curated,
    curated_names,
)
from redediting.concepts.relations import RELATIONS
from redediting.errors import ModelError


def test_everyday_table_covers_the_literature() -> None:
    everyday = load_everyday()
    assert len(everyday.concepts) >= 60
    for name in ("cat", "zebra", "car", "chow chow", "dog", "apple", "banana"):
        assert everyday.concept(name).parts
    assert everyday.shared("dog", "chow chow") > everyday.shared("car", "chow chow")


@pytest.mark.parametrize("table", [load_lexicon(trained_only=False), load_everyday()])
def test_every_value_of_the_tables_can_be_said(table: object) -> None:
    for name in table.concepts:  # type: ignore[attr-defined]
        source = LexiconSource(table)  # type: ignore[arg-type]
        assert source.values(name, "category")
        assert {place for place, _ in source.values(name, "location")} <= set(load_places())
        for relation in RELATIONS.values():
            for value, weight in source.values(name, relation.name):
                assert relation.form(value).count("{}") == 1
                assert weight == 1.0


def test_a_modifier_has_one_kind() -> None:
    words = [word for group in load_modifiers().values() for word in group]
    assert len(words) == len(set(words))


@pytest.mark.parametrize(
    ("relation", "value", "said"),
    [
        ("part", "whiskers", "cat with whiskers"),
        ("part", "antenna", "cat with an antenna"),
        ("material", "wood", "cat made of wood"),
        ("material", "fur", "cat with fur"),
        ("category", "animal", "cat, an animal"),
        ("location", "grass", "cat on the grass"),
        ("location", "moon", "cat in the moon"),
        ("colour", "red", "red cat"),
        ("style", "a sketch of", "a sketch of cat"),
    ],
)
def test_forms(relation: str, value: str, said: str) -> None:
    assert RELATIONS[relation].form(value).format("cat") == said


def test_the_first_source_that_knows_answers() -> None:
    source = curated()
    assert source.find("cat", "material") == ([("fur", 1.0)], "lexicon")
    assert source.find("cat", "action")[1] == "everyday"
    assert source.find("chow chow", "category") == ([("pet", 1.0)], "everyday")
    assert source.find("unicorn", "category") == ([], "")
    assert "chow chow" in curated_names()


def test_neighbours_vote() -> None:
    near = {"unicorn": [("horse", 0.6), ("zebra", 0.3), ("car", 0.1)]}
    source = NeighbourSource(
        LexiconSource(load_everyday()), lambda word: near.get(word, []), known={"cat"}
    )
    assert source.values("unicorn", "part") == [
        ("mane", pytest.approx(0.9)),
        ("hooves", pytest.approx(0.9)),
        ("tail", pytest.approx(0.6)),
        ("stripes", pytest.approx(0.3)),
    ]
    assert source.values("unicorn", "material") == [("fur", pytest.approx(0.9))]
    assert source.values("blob", "part") == []
    assert source.values("cat", "part") == []


# A tiny lexicon: the relations of each noun's first sense.
NOUNS = {
    "entity": {},
    "animal": {"hypernym": "entity"},
    "horse": {"hypernym": "animal", "mero_part": "mane"},
    "mane": {"hypernym": "entity", "holo_part": "horse"},
    "sea horse": {"hypernym": "animal"},
    "statue": {"hypernym": "entity", "mero_substance": "marble"},
    "marble": {"hypernym": "entity", "mero_part": "mane"},
}


def lmf() -> str:
    number = {noun: i for i, noun in enumerate(NOUNS)}
    entries = [
        f'<LexicalEntry id="tiny-e{i}"><Lemma writtenForm="{noun}" partOfSpeech="n"/>'
        f'<Sense id="tiny-s{i}" synset="tiny-{i}-n"/></LexicalEntry>'
        for noun, i in number.items()
    ]
    synsets = [
        f'<Synset id="tiny-{number[noun]}-n" ili="" partOfSpeech="n">'
        + "".join(
            f'<SynsetRelation relType="{kind}" target="tiny-{number[other]}-n"/>'
            for kind, other in relations.items()
        )
        + "</Synset>"
        for noun, relations in NOUNS.items()
    ]
    return "\n".join(
        [
            '<?xml version="1.0" encoding="UTF-8"?>',
            "<!DOCTYPE LexicalResource SYSTEM "
            '"http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">',
            '<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">',
            '<Lexicon id="tiny" label="tiny" language="en" email="a@b.c" license="none" '
            'version="1">',
            *itertools.chain(entries, synsets),
            "</Lexicon></LexicalResource>",
        ]
    )


def test_wordnet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wn = pytest.importorskip("wn", reason="the extra 'wordnet' is not installed")
    monkeypatch.setattr(wn.config, "data_directory", tmp_path / "wn")
    (tmp_path / "tiny.xml").write_text(lmf())
    wn.add(tmp_path / "tiny.xml", progress_handler=None)
    source = WordNetSource("tiny:1")
    assert source.values("horse", "category") == [("animal", 1.0), ("entity", 0.5)]
    assert source.values("horse", "part") == [("mane", 1.0)]
    assert source.values("sea horse", "part") == []
    assert source.values("statue", "material") == [("marble", 1.0)]
    assert source.values("horse", "colour") == []
    assert source.values("unicorn", "part") == []
    behind = FirstSource([*curated().sources, source])
    assert behind.find("horse", "category") == ([("farm animal", 1.0)], "lexicon")
    assert behind.find("statue", "material") == ([("marble", 1.0)], "wordnet")
    with pytest.raises(ModelError, match="got 'oewn:1'"):
        WordNetSource("oewn:1")


def test_wordnet_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wn", None)
    with pytest.raises(ModelError, match=r"redediting\[wordnet\]"):
        WordNetSource("oewn:2024")
