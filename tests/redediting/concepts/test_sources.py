"""Where values come from: tables, nearest concepts, WordNet."""

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
    curated,
    curated_names,
)
from redediting.concepts.relations import RELATIONS
from redediting.concepts.wordnet import WnGraph, WordNetFolder, WordNetSource
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


# A tiny database in the format of WordNet's plain files, offsets and all.
NOUNS = [
    ("00000010", ["entity"], []),
    ("00000020", ["animal", "beast"], [("@", "00000010")]),
    ("00000030", ["horse", "Equus_caballus"], [("@", "00000020"), ("%p", "00000050")]),
    ("00000040", ["sea_horse"], [("@", "00000020")]),
    ("00000050", ["mane"], [("@", "00000010"), ("#p", "00000030")]),
    ("00000060", ["statue"], [("@", "00000010"), ("%s", "00000070"), ("+", "00000080")]),
    ("00000070", ["marble"], [("@", "00000010"), ("%p", "00000050")]),
]
SENSES = {"horse": [30], "sea_horse": [40, 30], "statue": [60], "animal": [20], "marble": [70]}


@pytest.fixture
def wordnet(tmp_path: Path) -> Path:
    data = ["  1 This is a licence, on lines that begin with blanks."]
    for offset, words, pointers in NOUNS:
        named = " ".join(f"{word} 0" for word in words)
        linked = " ".join(f"{symbol} {other} n 0000" for symbol, other in pointers)
        line = f"{offset} 03 n {len(words):02x} {named} {len(pointers):03d} {linked}"
        data.append(f'{" ".join(line.split())} | a gloss; "with | a bar"  ')
    index = ["  1 This is a licence, on lines that begin with blanks."]
    for word, senses in SENSES.items():
        offsets = " ".join(f"{sense:08d}" for sense in senses)
        index.append(f"{word} n {len(senses)} 2 @ %p {len(senses)} 1 {offsets}  ")
    (tmp_path / "data.noun").write_text("\n".join(data) + "\n")
    (tmp_path / "index.noun").write_text("\n".join(index) + "\n")
    return tmp_path


def test_wordnet_folder(wordnet: Path) -> None:
    source = WordNetSource(WordNetFolder(wordnet))
    assert source.values("horse", "category") == [("animal", 1.0), ("entity", 0.5)]
    assert source.values("Horse", "part") == [("mane", 1.0)]
    assert source.values("sea horse", "part") == []  # its first sense has no parts
    assert source.values("statue", "material") == [("marble", 1.0)]
    assert source.values("horse", "colour") == []
    assert source.values("unicorn", "part") == []
    assert WordNetSource(WordNetFolder(wordnet), depth=1).values("horse", "category") == [
        ("animal", 1.0)
    ]


def test_wordnet_stands_behind_the_tables(wordnet: Path) -> None:
    source = FirstSource([*curated().sources, WordNetSource(WordNetFolder(wordnet))])
    assert source.find("horse", "category") == ([("farm animal", 1.0)], "lexicon")
    assert source.find("statue", "material") == ([("marble", 1.0)], "wordnet")


def test_wordnet_that_is_none(wordnet: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"WordNet 3\.x folder.*'dict'"):
        WordNetFolder(tmp_path / "nowhere")
    (wordnet / "data.noun").write_text("00000030 03 n 05 horse 0 002 @ 00000020 n 0000\n")
    with pytest.raises(ModelError, match=r"damaged one at data\.noun:1"):
        WordNetSource(WordNetFolder(wordnet)).values("horse", "part")


LMF = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE LexicalResource SYSTEM "http://globalwordnet.github.io/schemas/WN-LMF-1.1.dtd">
<LexicalResource xmlns:dc="https://globalwordnet.github.io/schemas/dc/">
<Lexicon id="tiny" label="tiny" language="en" email="a@b.c" license="none" version="1">
<LexicalEntry id="e1"><Lemma writtenForm="horse" partOfSpeech="n"/><Sense id="s1" synset="tiny-1-n"/></LexicalEntry>
<LexicalEntry id="e2"><Lemma writtenForm="animal" partOfSpeech="n"/><Sense id="s2" synset="tiny-2-n"/></LexicalEntry>
<LexicalEntry id="e3"><Lemma writtenForm="mane" partOfSpeech="n"/><Sense id="s3" synset="tiny-3-n"/></LexicalEntry>
<Synset id="tiny-1-n" ili="" partOfSpeech="n"><SynsetRelation relType="hypernym" target="tiny-2-n"/><SynsetRelation relType="mero_part" target="tiny-3-n"/></Synset>
<Synset id="tiny-2-n" ili="" partOfSpeech="n"/>
<Synset id="tiny-3-n" ili="" partOfSpeech="n"/>
</Lexicon></LexicalResource>
"""  # noqa: E501


def test_wn_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wn = pytest.importorskip("wn", reason="the extra 'wordnet' is not installed")
    monkeypatch.setattr(wn.config, "data_directory", tmp_path / "wn")
    (tmp_path / "tiny.xml").write_text(LMF)
    wn.add(tmp_path / "tiny.xml", progress_handler=None)
    source = WordNetSource(WnGraph("tiny:1"))
    assert source.values("horse", "category") == [("animal", 1.0)]
    assert source.values("horse", "part") == [("mane", 1.0)]
    assert source.values("unicorn", "part") == []
    with pytest.raises(ModelError, match="got 'oewn:1'"):
        WnGraph("oewn:1")


def test_wn_package_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wn", None)
    with pytest.raises(ModelError, match=r"redediting\[wordnet\]"):
        WnGraph("oewn:2024")
