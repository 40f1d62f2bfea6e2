"""The `--name=value` flags of one instruction."""

from __future__ import annotations

from collections.abc import Sequence

from engine.build.problems import DockerfileError, did_you_mean


class Flags:
    """The flags that an instruction knows, filled from the words it was given. Raises DockerfileError."""

    def __init__(
        self,
        words: Sequence[str],
        *,
        strings: Sequence[str] = (),
        lists: Sequence[str] = (),
        switches: Sequence[str] = (),
    ) -> None:
        self._values: dict[str, list[str]] = {}
        known = (*strings, *lists, *switches)
        for word in words:
            if not word.startswith("--"):
                raise DockerfileError(f"arg should start with -- : {word}")
            dashed, equals, value = word.partition("=")
            name = dashed[2:]
            if name not in known:
                raise DockerfileError(f"unknown flag: {dashed}{did_you_mean(name, known)}")
            if name in self._values and name not in lists:
                raise DockerfileError(f"duplicate flag specified: {dashed}")
            if name in switches:
                if equals and not value:
                    raise DockerfileError(f"missing a value on flag: {dashed}")
                if value.lower() not in ("", "true", "false"):
                    raise DockerfileError(f"expecting boolean value for flag {dashed}, not: {value}")
                value = "false" if value.lower() == "false" else "true"
            elif not equals:
                raise DockerfileError(f"missing a value on flag: {dashed}")
            self._values.setdefault(name, []).append(value)

    def text(self, name: str, default: str = "") -> str:
        return self._values.get(name, [default])[0]

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(self._values.get(name, ()))

    def switch(self, name: str) -> bool:
        return self.text(name) == "true"

    def switch_or_unset(self, name: str) -> bool | None:
        return self.switch(name) if name in self._values else None
