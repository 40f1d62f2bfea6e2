"""The keys that leave a container's terminal without stopping it."""

from __future__ import annotations

from engine.errors import InvalidInput

DEFAULT = "ctrl-p,ctrl-q"
_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def parse(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as the bytes a terminal sends; none of nothing. Raises InvalidInput."""
    if not text:
        return b""
    typed = bytearray()
    for key in text.split(","):
        if len(key) == 1:
            typed += key.encode("latin-1", "replace")
            continue
        letter = key.removeprefix("ctrl-")
        if letter == key or len(letter) != 1:
            raise InvalidInput(f"Invalid detach keys ({text}) provided: write them as ctrl-p,ctrl-q")
        if letter.isascii() and letter.islower():
            typed.append(ord(letter) - ord("a") + 1)
        elif letter in _SPECIAL:
            typed.append(_SPECIAL[letter])
        else:
            raise InvalidInput(f"Invalid detach keys ({text}) provided: ctrl-{letter} is no key")
    return bytes(typed)


class DetachKeys:
    """Looks for the key sequence in what is typed, and holds back what may become it."""

    def __init__(self, keys: bytes = b"") -> None:
        self._keys = keys or parse(DEFAULT)
        self._matched = 0
        self.pressed = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """(what to pass on, whether the sequence is complete)."""
        passed = bytearray()
        for byte in data:
            if byte == self._keys[self._matched]:
                self._matched += 1
                if self._matched == len(self._keys):
                    self._matched, self.pressed = 0, True
                    return bytes(passed), True
                continue
            if self._matched:
                passed += self._keys[: self._matched]
                self._matched = 0
                if byte == self._keys[0]:
                    self._matched = 1
                    continue
            passed.append(byte)
        return bytes(passed), False
