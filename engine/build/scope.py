"""Which variables an instruction sees: global ARGs, a stage's own ARGs and its ENV.

https://docs.docker.com/reference/dockerfile/#understand-how-arg-and-from-interact and #scope
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from engine.build.expand import Expanded, ExpansionError, Rules, expand, read
from engine.build.instructions import Arg
from engine.build.problems import DockerfileError


def global_scope(
    automatic: Mapping[str, str], declared: Iterable[Arg], given: Mapping[str, str], escape: str
) -> dict[str, str]:
    """The values of the ARGs before the first FROM; each may use those above it. Raises DockerfileError."""
    values = dict(automatic)
    for arg in declared:
        for name in arg.declared:
            if name.name in given:
                values[name.name] = given[name.name]
            elif name.default is not None:
                try:
                    values[name.name] = expand(name.default, values, Rules(escape=escape))
                except ExpansionError as error:
                    raise DockerfileError(str(error), arg.line, "ARG") from None
    return values


class Scope(Mapping[str, str]):
    """One stage's variables. ENV of the stage, or of what it is built from, always wins over ARG."""

    def __init__(
        self,
        env: Iterable[str],
        globals_: Mapping[str, str],
        given: Mapping[str, str],
        escape: str,
        inherited: Mapping[str, str | None] | None = None,
    ) -> None:
        self.env: dict[str, str] = {}
        for pair in env:
            name, _, value = pair.partition("=")
            self.env[name] = value
        self.args: dict[str, str | None] = dict(inherited or {})
        self.missed: set[str] = set()
        """Names that words asked for in vain."""
        self._globals = globals_
        self._given = given
        self._rules = Rules(escape=escape)

    def __getitem__(self, name: str) -> str:
        if name in self.env:
            return self.env[name]
        value = self.args.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        yield from self.env
        yield from (name for name, value in self.args.items() if value is not None and name not in self.env)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def declare(self, name: str, default: str | None) -> str | None:
        """ARG in a stage: the value given to the build, else the default, else the global ARG's value."""
        if name in self._given:
            value: str | None = self._given[name]
        elif default is not None:
            value = self.word(default)
        else:
            value = self._globals.get(name)
        self.args[name] = value
        return value

    def set(self, name: str, value: str) -> None:
        """ENV."""
        self.env[name] = value

    def word(self, text: str) -> str:
        """`text` expanded as one word. Raises ExpansionError."""
        found = read(text, self, self._rules)
        self._note(found)
        return found.text

    def words(self, text: str) -> tuple[str, ...]:
        """`text` expanded and split. Raises ExpansionError."""
        found = read(text, self, self._rules)
        self._note(found)
        return found.words

    def _note(self, found: Expanded) -> None:
        self.missed |= found.unknown - self.args.keys()

    def body(self, text: str) -> str:
        """A heredoc's body: its quotes are its own, and the backslash escapes. Raises ExpansionError."""
        found = read(text, self, Rules(plain_quotes=True))
        self._note(found)
        return found.text

    @property
    def run_args(self) -> dict[str, str]:
        """The declared ARGs as RUN sees them, where ENV does not hide them."""
        return {name: value for name, value in self.args.items() if value is not None and name not in self.env}

    def undeclared(self) -> tuple[str, ...]:
        """Names given to the build that nothing has declared so far."""
        return tuple(name for name in self._given if name not in self.args)
