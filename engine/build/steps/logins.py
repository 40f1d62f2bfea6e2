"""What ADD says to servers that ask who it is: secrets of the build, each for one host alone.

https://docs.docker.com/build/building/secrets/#http-authentication-for-add and #git-authentication-for-remote-contexts
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.build.problems import DockerfileError


@dataclass(frozen=True)
class Logins:
    """`secrets` are the build's."""

    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def for_http(self, host: str) -> str:
        """The Authorization header for `host`; empty for none. Raises DockerfileError."""
        return self._header((f"HTTP_AUTH_HEADER_{host}",)) or self._token((f"HTTP_AUTH_TOKEN_{host}",), "Bearer {}")

    def for_git(self, host: str) -> str:
        """The same for git over http."""
        header = self._header((f"GIT_AUTH_HEADER.{host}", "GIT_AUTH_HEADER"))
        if header:
            return header
        token = self._token((f"GIT_AUTH_TOKEN.{host}", "GIT_AUTH_TOKEN"), "x-access-token:{}")
        return f"basic {base64.b64encode(token.encode()).decode()}" if token else ""

    def named(self) -> Logins:
        """Only what is for a host by its name: nobody has chosen the others that a repository leads to."""
        general = ("GIT_AUTH_HEADER", "GIT_AUTH_TOKEN")
        return Logins({name: value for name, value in self.secrets.items() if name not in general})

    def _header(self, names: tuple[str, ...]) -> str:
        return self._token(names, "{}")

    def _token(self, names: tuple[str, ...], form: str) -> str:
        name = next((name for name in names if name in self.secrets), "")
        if not name:
            return ""
        text = self.secrets[name].decode("utf-8", "replace").strip()
        if not text.isprintable():
            raise DockerfileError(f"secret {name}: it must be one line, as it is part of a header")
        return form.format(text)
