"""YAML text → a tree that knows where each key and value stands.

PyYAML's C parser gives the events; typing is ours. The stock resolver reads `on:` as True, `1.10` as 1.1 and
lets a duplicate key pass. Here a plain scalar stays text (`Plain`), and the model that receives it decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import yaml

from pipeline.definition.problems import DefinitionErrors, Problem
from pipeline.values import did_you_mean

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_NODES = 50_000
"""Both after anchors are expanded: what a file of the "billion laughs" kind would blow up."""

Path = tuple[str | int, ...]


class Plain(str):
    """A scalar written without quotes: may stand for a number or a boolean."""

    __slots__ = ()


@dataclass(frozen=True)
class Mark:
    line: int
    column: int


@dataclass
class Leaf:
    mark: Mark
    value: str | None


@dataclass
class Sequence:
    mark: Mark
    items: list[Tree] = field(default_factory=list)


@dataclass
class Mapping:
    mark: Mark
    items: dict[str, Tree] = field(default_factory=dict)
    keys: dict[str, Mark] = field(default_factory=dict)

    def put(self, key: str, mark: Mark, value: Tree) -> None:
        self.items[key] = value
        self.keys[key] = mark


Tree = Leaf | Sequence | Mapping

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_MERGE = "<<"


def read_tree(text: str, filename: str, problems: list[Problem]) -> Tree:
    """The document as a tree. What does not hide the rest, such as a key twice, is added to `problems`.

    Raises DefinitionErrors when it is not YAML that we accept.
    """
    if len(text) > MAX_BYTES or len(text.encode(errors="surrogatepass")) > MAX_BYTES:
        raise DefinitionErrors([Problem(filename, 1, 1, "the file is larger than 1 MiB", "split it")])
    return _Builder(text, filename, problems).build()


class _Builder:
    """Builds from events, iteratively where the input decides the depth."""

    def __init__(self, text: str, filename: str, problems: list[Problem]) -> None:
        self.text = text
        self.filename = filename
        self.problems = problems
        self.anchors: dict[str, Tree | None] = {}
        self.sizes: dict[int, int] = {}
        self.heights: dict[int, int] = {}
        self.nodes = 0

    def build(self) -> Tree:
        try:
            self._check_bounds()
            self.events = iter(yaml.parse(self.text, Loader=yaml.CSafeLoader))
            tree: Tree = Leaf(Mark(1, 1), None)
            documents = 0
            for event in self.events:
                if isinstance(event, yaml.DocumentStartEvent):
                    documents += 1
                    if documents > 1:
                        self._problem(event, "a second document starts here", "keep one document in a file")
                        break
                    tree = self._node(next(self.events))
        except yaml.YAMLError as error:
            raise DefinitionErrors([*self.problems, self._syntax(error)]) from None
        except UnicodeEncodeError as error:  # a lone surrogate
            raise DefinitionErrors([self._unreadable(error.start)]) from None
        return tree

    def _check_bounds(self) -> None:
        depth = 0
        for nodes, event in enumerate(yaml.parse(self.text, Loader=yaml.CSafeLoader)):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
            if depth > MAX_DEPTH:
                self._stop(event, f"nested deeper than {MAX_DEPTH} levels", "make it flatter")
            if nodes > 2 * MAX_NODES:
                self._stop(event, "too many values", "split the file")

    def _node(self, event: Any) -> Tree:
        mark = Mark(event.start_mark.line + 1, event.start_mark.column + 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self.nodes += 1
        start = self.nodes
        anchor: str | None = event.anchor
        if anchor is not None:
            self.anchors[anchor] = None
        if event.tag is not None and event.tag not in ("!", "tag:yaml.org,2002:str"):
            self._problem(event, f"the tag {event.tag} is not known here", "remove it")
        tree: Tree
        if isinstance(event, yaml.ScalarEvent):
            tree = self._scalar(event, mark)
        elif isinstance(event, yaml.SequenceStartEvent):
            tree = Sequence(mark)
            while not isinstance(item := next(self.events), yaml.SequenceEndEvent):
                tree.items.append(self._node(item))
        else:
            tree = self._mapping(mark)
        self.sizes[id(tree)] = self.nodes - start + 1
        self.heights[id(tree)] = height = 1 + max((self.heights[id(child)] for child in _children(tree)), default=0)
        if height > MAX_DEPTH + 1:
            self._stop(event, f"nested deeper than {MAX_DEPTH} levels", "make it flatter")
        if anchor is not None:
            self.anchors[anchor] = tree
        return tree

    def _scalar(self, event: Any, mark: Mark) -> Leaf:
        quoted = event.style in ("'", '"', "|", ">") or event.tag == "tag:yaml.org,2002:str"
        if quoted:
            return Leaf(mark, event.value)
        return Leaf(mark, None if event.value in _NULL else Plain(event.value))

    def _mapping(self, mark: Mark) -> Mapping:
        mapping = Mapping(mark)
        merges: list[tuple[Any, Tree]] = []
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self._node(event)
            value = self._node(next(self.events))
            if not isinstance(key, Leaf):
                self._problem(event, "a key that is not a word", "put quotes around it")
                continue
            name = "null" if key.value is None else str(key.value)
            if name == _MERGE and isinstance(key.value, Plain):
                merges.append((event, value))
            elif name in mapping.items:
                first = mapping.keys[name].line
                self._problem(event, f'the key "{name}" is here twice', f"the first is on line {first}")
            else:
                mapping.put(name, key.mark, value)
        for event, value in merges:
            for source in value.items if isinstance(value, Sequence) else [value]:
                if not isinstance(source, Mapping):
                    self._problem(event, "<< merges mappings only", "name an anchor of a mapping")
                    continue
                for name, item in source.items.items():
                    if name not in mapping.items:
                        mapping.put(name, source.keys[name], item)
        return mapping

    def _alias(self, event: Any) -> Tree:
        name: str = event.anchor
        if name not in self.anchors:
            remedy = did_you_mean(name, self.anchors)
            self._stop(event, f"there is no anchor &{name} before this", remedy)
        tree = self.anchors[name]
        if tree is None:
            self._stop(event, f"the anchor &{name} contains itself", "write it out")
        self.nodes += self.sizes[id(tree)]
        if self.nodes > MAX_NODES:
            self._stop(event, f"anchors expand to more than {MAX_NODES} values", "write less of it")
        return tree

    def _problem(self, event: Any, what: str, remedy: str) -> None:
        mark = event.start_mark
        self.problems.append(Problem(self.filename, mark.line + 1, mark.column + 1, what, remedy))

    def _stop(self, event: Any, what: str, remedy: str) -> NoReturn:
        self._problem(event, what, remedy)
        raise DefinitionErrors(self.problems)

    def _unreadable(self, offset: int) -> Problem:
        before = self.text[:offset]
        line, column = before.count("\n") + 1, offset - before.rfind("\n")
        what = f"unreadable text: the character {self.text[offset]!a}"
        return Problem(self.filename, line, column, what, "save the file as UTF-8, without control characters")

    def _syntax(self, error: yaml.YAMLError) -> Problem:
        if isinstance(error, yaml.reader.ReaderError):
            # libyaml counts the bytes that it was given.
            before = self.text.encode()[: error.position].decode(errors="ignore")
            return self._unreadable(min(len(before), len(self.text) - 1))
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        what = str(getattr(error, "problem", None) or "unreadable text")
        context = getattr(error, "context", None)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        lines = self.text.split("\n")
        at = lines[line - 1] if line <= len(lines) else ""
        if "\t" in at[: len(at) - len(at.lstrip())] or "\\t" in what:
            remedy = "indent with spaces, not tabs"
        elif "mapping values are not allowed" in what:
            remedy = "put quotes around text that has a colon in it, or check the indentation"
        else:
            remedy = "check the indentation and the quotes here"
        return Problem(self.filename, line, column, f"{context}, {what}" if context else what, remedy)


def _children(tree: Tree) -> Iterable[Tree]:
    if isinstance(tree, Leaf):
        return ()
    return tree.items.values() if isinstance(tree, Mapping) else tree.items


def plain_value(tree: Tree) -> Any:
    """The tree as dicts, lists, strings (`Plain` or quoted) and None."""
    if isinstance(tree, Mapping):
        return {key: plain_value(value) for key, value in tree.items.items()}
    if isinstance(tree, Sequence):
        return [plain_value(item) for item in tree.items]
    return tree.value


def locate(tree: Tree, path: Path, *, key: bool = False) -> Mark:
    """Where the value of a path stands (or its last key); of a path that is not there, its nearest parent."""
    mark = tree.mark
    for index, part in enumerate(path):
        if isinstance(tree, Mapping) and str(part) in tree.items:
            last = index == len(path) - 1
            mark = tree.keys[str(part)]
            tree = tree.items[str(part)]
            if not (last and key):
                # An empty value stands nowhere of its own: its key is the better place.
                mark = mark if isinstance(tree, Leaf) and tree.value is None else tree.mark
        elif isinstance(tree, Sequence) and isinstance(part, int) and part < len(tree.items):
            tree = tree.items[part]
            mark = tree.mark
        else:
            break
    return mark
