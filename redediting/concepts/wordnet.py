"""WordNet as a source of relations: any WordNet 3.x folder, or the optional ``wn`` package.

Category: hypernyms, nearest first. Part: meronyms (``%p``). Material: substance meronyms (``%s``).
Only the first sense of a noun counts, and what it lacks is inherited from its hypernyms; a value
weighs ½ for each step it is away.

Format of the plain database files (``index.noun``, ``data.noun``), one entry a line, licence lines
indented by two blanks:

    index   lemma pos synset_cnt p_cnt [ptr …] sense_cnt tagsense_cnt offset …
    data    offset lex_file ss_type w_cnt(hex) [word lex_id …] p_cnt [ptr offset pos st …] | gloss

References:
    WordNet 3.0 reference manual, wndb(5WN); Fellbaum, "WordNet", MIT Press 1998.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Protocol

from redediting.concepts.relations import Values
from redediting.errors import ModelError

Pointer = Literal["hypernym", "part", "substance"]
_SYMBOLS: dict[Pointer, tuple[str, ...]] = {
    "hypernym": ("@", "@i"),
    "part": ("%p",),
    "substance": ("%s",),
}
_WN_RELATIONS: dict[Pointer, tuple[str, ...]] = {
    "hypernym": ("hypernym", "instance_hypernym"),
    "part": ("mero_part",),
    "substance": ("mero_substance",),
}
_POINTERS: dict[str, Pointer] = {"category": "hypernym", "part": "part", "material": "substance"}


class Graph(Protocol):
    """Nouns, their senses (any hashable mark) and the pointers between those."""

    def senses(self, noun: str) -> Sequence[Any]:
        """Senses of a noun, the most frequent first; none for an unknown one."""
        ...

    def words(self, sense: Any) -> Sequence[str]:  # noqa: ANN401 - the graph's own mark
        """Words of a sense, blanks between the parts of a compound."""
        ...

    def related(self, sense: Any, pointer: Pointer) -> Sequence[Any]:  # noqa: ANN401
        """Senses that a pointer leads to."""
        ...


class WordNetFolder:
    """The plain database files of WordNet 3.x; read on first use."""

    def __init__(self, folder: str | Path) -> None:
        """Checks the folder.

        Raises:
            ModelError: it lacks ``index.noun`` or ``data.noun``.
        """
        self.folder = Path(folder).expanduser()
        for name in ("index.noun", "data.noun"):
            if not (self.folder / name).is_file():
                raise ModelError(
                    f"expected a WordNet 3.x folder with index.noun and data.noun, got "
                    f"{str(folder)!r} without {name}; name its 'dict' folder"
                )

    def senses(self, noun: str) -> Sequence[int]:
        """See `Graph`."""
        return self._index.get(noun.casefold().replace(" ", "_"), ())

    def words(self, sense: int) -> Sequence[str]:
        """See `Graph`."""
        return self._synsets[sense][0]

    def related(self, sense: int, pointer: Pointer) -> Sequence[int]:
        """See `Graph`."""
        wanted = _SYMBOLS[pointer]
        return [offset for symbol, offset in self._synsets[sense][1] if symbol in wanted]

    def _lines(self, name: str) -> Iterator[list[str]]:
        path = self.folder / name
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1):
            if line and not line.startswith("  "):
                yield [f"{path.name}:{number}", *line.split(" | ")[0].split()]

    @cached_property
    def _index(self) -> dict[str, tuple[int, ...]]:
        found = {}
        for where, *fields in self._lines("index.noun"):
            try:
                pointers = int(fields[3])
                count = int(fields[2])
                offsets = fields[6 + pointers :]
                if len(offsets) != count:
                    raise ValueError
                found[fields[0]] = tuple(int(offset) for offset in offsets)
            except (ValueError, IndexError) as error:
                raise _damaged(where, self.folder) from error
        return found

    @cached_property
    def _synsets(self) -> dict[int, tuple[tuple[str, ...], tuple[tuple[str, int], ...]]]:
        found = {}
        for where, *fields in self._lines("data.noun"):
            try:
                n_words = int(fields[3], 16)
                words = tuple(w.replace("_", " ") for w in fields[4 : 4 + 2 * n_words : 2])
                start = 4 + 2 * n_words
                links = fields[start + 1 : start + 1 + 4 * int(fields[start])]
                if len(links) != 4 * int(fields[start]):
                    raise ValueError
                nouns = [links[i : i + 4] for i in range(0, len(links), 4) if links[i + 2] == "n"]
                found[int(fields[0])] = (words, tuple((link[0], int(link[1])) for link in nouns))
            except (ValueError, IndexError) as error:
                raise _damaged(where, self.folder) from error
        return found


class WnGraph:
    """A lexicon of the ``wn`` package (installed by the extra ``wordnet``)."""

    def __init__(self, lexicon: str) -> None:
        """Opens a lexicon that ``wn`` has downloaded or added.

        Args:
            lexicon: as ``wn`` names it, e.g. ``oewn:2024``.

        Raises:
            ModelError: the package or the lexicon is missing.
        """
        try:
            wn = importlib.import_module("wn")
        except ImportError as error:
            raise ModelError(
                "expected the package 'wn', got none; install redediting[wordnet] or name a "
                "WordNet folder"
            ) from error
        try:
            self._wordnet = wn.Wordnet(lexicon)
        except wn.Error as error:
            raise ModelError(
                f"expected a lexicon that wn has, got {lexicon!r}; run 'python -m wn download "
                f"{lexicon}' first"
            ) from error

    def senses(self, noun: str) -> Sequence[Any]:
        """See `Graph`."""
        return self._wordnet.synsets(noun, pos="n")

    def words(self, sense: Any) -> Sequence[str]:  # noqa: ANN401 - a synset of wn
        """See `Graph`."""
        return [str(lemma) for lemma in sense.lemmas()]

    def related(self, sense: Any, pointer: Pointer) -> Sequence[Any]:  # noqa: ANN401
        """See `Graph`."""
        return sense.get_related(*_WN_RELATIONS[pointer])


class WordNetSource:
    """Relations of a WordNet graph; see the module for what counts.

    Attributes:
        name: ``wordnet``.
    """

    def __init__(self, graph: Graph, *, depth: int = 3, most: int = 6) -> None:
        """Wraps a graph.

        Args:
            graph: `WordNetFolder` or `WnGraph`.
            depth: steps up the hypernyms.
            most: values returned at most.
        """
        self.graph = graph
        self.depth = depth
        self.most = most
        self.name = "wordnet"

    def values(self, concept: str, relation: str) -> Values:
        """See `redediting.concepts.relation_sources.RelationSource`."""
        senses = list(self.graph.senses(concept))[:1]
        if not senses or relation not in _POINTERS:
            return []
        found: dict[str, float] = {}
        for step in range(self.depth):
            for sense in senses:
                for other in self.graph.related(sense, _POINTERS[relation]):
                    found.setdefault(self.graph.words(other)[0], 0.5**step)
            senses = [up for sense in senses for up in self.graph.related(sense, "hypernym")]
        return list(found.items())[: self.most]


def _damaged(where: str, folder: Path) -> ModelError:
    return ModelError(
        f"expected WordNet 3.x database lines, got a damaged one at {where} in "
        f"{str(folder)!r}; copy the files again"
    )
