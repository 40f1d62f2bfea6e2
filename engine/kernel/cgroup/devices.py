"""Device rules of cgroup v2: a BPF program on the group that answers for each use of a device node. v1 has files.

The rules mean what v1's list means (Documentation/admin-guide/cgroup-v1/devices): one answer for all, and exceptions to
it. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import struct

from engine.kernel import libc

TYPE_CHECKING = False  # typing is half a megabyte, and all of the zygote's children would carry it
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    Device = tuple[str, int | None, int | None]
    """c or b, major, minor; None stands for all."""

_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}
_EVERY = 7
# Opcodes: load a word, 32-bit arithmetic, jumps, exit (linux/bpf.h).
_LOAD, _MOVE, _MOVE_IMMEDIATE, _AND, _SHIFT_RIGHT = 0x61, 0xBC, 0xB4, 0x54, 0x74
_JUMP_EQUAL, _JUMP_NOT_EQUAL, _EXIT = 0x15, 0x55, 0x95


class Devices:
    """What `rules` of the OCI specification come to: `allowed` where no exception says otherwise."""

    def __init__(self, rules: Iterable[Mapping[str, Any]]) -> None:
        self.allowed = True
        self.exceptions: dict[Device, int] = {}
        for rule in rules:
            self._add(rule)

    def _add(self, rule: Mapping[str, Any]) -> None:
        kind = rule.get("type") or "a"
        if kind == "a":
            self.allowed, self.exceptions = bool(rule["allow"]), {}
            return
        major, minor = (None if rule.get(side) in (None, -1) else int(rule[side]) for side in ("major", "minor"))
        device = (kind, major, minor)
        access = sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm"))
        had = self.exceptions.get(device, 0)
        now = had & ~access if rule["allow"] == self.allowed else had | access
        if now:
            self.exceptions[device] = now
        else:
            self.exceptions.pop(device, None)

    @property
    def anything_goes(self) -> bool:
        return self.allowed and not self.exceptions

    def program(self) -> bytes:
        """The answer as BPF: 1 lets through. Its context: kind and access in one word, major, minor."""
        code = [
            _instruction(_LOAD, 3, 1, 0),
            _instruction(_LOAD, 4, 1, 4),
            _instruction(_LOAD, 5, 1, 8),
            _instruction(_MOVE, 2, 3),
            _instruction(_AND, 2, immediate=0xFFFF),
            _instruction(_SHIFT_RIGHT, 3, immediate=16),
        ]
        for device, access in self.exceptions.items():
            code += self._exception(device, access)
        return b"".join([*code, *_answer(self.allowed)])

    def _exception(self, device: Device, access: int) -> list[bytes]:
        kind, major, minor = device
        answer = _answer(not self.allowed)
        tests: list[tuple[int, int, int]] = [(_JUMP_NOT_EQUAL, 2, _KINDS[kind])]
        tests += [
            (_JUMP_NOT_EQUAL, register, wanted) for register, wanted in ((4, major), (5, minor)) if wanted is not None
        ]
        before: list[bytes] = []
        if access != _EVERY:
            # What is allowed must cover all that is asked for; what is denied need touch only a part of it.
            before = [
                _instruction(_MOVE, 1, 3),
                _instruction(_AND, 1, immediate=access if self.allowed else ~access & 7),
            ]
            tests.append((_JUMP_EQUAL if self.allowed else _JUMP_NOT_EQUAL, 1, 0))
        code = list(before)
        for at, (jump, register, wanted) in enumerate(tests):
            code.append(_instruction(jump, register, offset=len(tests) - at - 1 + len(answer), immediate=wanted))
        return [*code, *answer]


def _instruction(code: int, target: int = 0, source: int = 0, offset: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("=BBhi", code, source << 4 | target, offset, immediate)


def _answer(allow: bool) -> list[bytes]:
    return [_instruction(_MOVE_IMMEDIATE, 0, immediate=int(allow)), _instruction(_EXIT)]


_loaded: dict[bytes, int] = {}
"""Programs that the kernel has checked, by their code: most containers have the same."""
_MOST_LOADED = 16


def restrict(folder: str, rules: Iterable[Mapping[str, Any]]) -> None:
    """Has the group's processes, and those of groups below it, use devices as `rules` say and no other way."""
    wanted = Devices(rules)
    if wanted.anything_goes:
        return
    group = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc.bpf(
            _PROG_ATTACH, struct.pack("=IIII", group, _load(wanted.program()), _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
        )
    finally:
        os.close(group)


def loadable() -> bool:
    """Whether this kernel takes such programs, from this process."""
    try:
        _load(Devices([{"allow": False}]).program())
    except OSError:
        return False
    return True


def _load(program: bytes) -> int:
    if program in _loaded:
        return _loaded[program]
    code = ctypes.create_string_buffer(program, len(program))
    license_ = ctypes.create_string_buffer(b"GPL")
    attributes = struct.pack(
        "=IIQQ", _TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code), ctypes.addressof(license_)
    )
    fd = libc.bpf(_PROG_LOAD, attributes)
    if len(_loaded) >= _MOST_LOADED:
        os.close(_loaded.pop(next(iter(_loaded))))
    _loaded[program] = fd
    return fd
