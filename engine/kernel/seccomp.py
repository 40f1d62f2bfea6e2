"""A seccomp section of the OCI runtime spec → a BPF program for the native architecture (config-linux.md, Seccomp).

The program is a binary search over ranges of system call numbers: some hundred and fifty instructions for each
architecture, of which a call passes about ten. x86-64 has i386 beside it where the profile names that. Other
architectures' calls are killed, x32's answered with ENOSYS.
"""

from __future__ import annotations

import functools
import json
import platform
import struct
from collections.abc import Mapping, Sequence
from typing import Any

from engine.kernel.syscalls import NUMBERS

_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7, "i386": 0x40000003}
_BESIDE = {"x86_64": ("SCMP_ARCH_X86", "i386")}
"""What programs of another architecture can run there: its name in profiles, and ours."""
_X32_BIT = 0x40000000
_MAX_INSTRUCTIONS = 4096

_LD_W_ABS, _JA, _JEQ, _JGT, _JGE, _AND, _RET = 0x20, 0x05, 0x15, 0x25, 0x35, 0x54, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16

_KILL_PROCESS, _KILL_THREAD, _TRAP, _ERRNO = 0x80000000, 0, 0x00030000, 0x00050000
_TRACE, _LOG, _ALLOW = 0x7FF00000, 0x7FFC0000, 0x7FFF0000
_ENOSYS, _EPERM = 38, 1

Code = tuple[tuple[int, int, int, int], ...]


class SeccompError(ValueError):
    """The profile asks for something unknown; the text names it."""


def compile_filter(section: Mapping[str, Any], machine: str | None = None) -> bytes:
    """The program of a `linux.seccomp` object (JSON names), eight bytes an instruction.

    System calls that this architecture does not have are passed over. Raises SeccompError.
    """
    return _compile(json.dumps(section, sort_keys=True), machine or platform.machine())


@functools.lru_cache(maxsize=64)
def _compile(text: str, machine: str) -> bytes:
    section = json.loads(text)
    native = _calls(section, machine)
    beside: Code = ((_RET, 0, 0, _KILL_PROCESS),)
    name, other = _BESIDE.get(machine, ("", ""))
    if name and name in section.get("architectures", ()):
        beside = ((_JEQ, 1, 0, _AUDIT_ARCH[other]), *beside, *_calls(section, other))
    program = (
        (_LD_W_ABS, 0, 0, _ARCH),
        (_JEQ, 1, 0, _AUDIT_ARCH[machine]),
        (_JA, 0, 0, len(native)),
        *native,
        *beside,
    )
    if len(program) > _MAX_INSTRUCTIONS:
        raise SeccompError(f"the seccomp profile needs {len(program)} instructions, the kernel takes 4096")
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def _calls(section: Mapping[str, Any], machine: str) -> Code:
    """What decides the calls of one architecture."""
    numbers = NUMBERS[machine]
    default = _ret(_action(section["defaultAction"], section.get("defaultErrnoRet")))
    by_number: dict[int, list[tuple[Sequence[Mapping[str, Any]], int]]] = {}
    for rule in section.get("syscalls", ()):
        action = _action(rule["action"], rule.get("errnoRet"))
        for name in rule["names"]:
            number = numbers.get(name)
            if number is not None:
                by_number.setdefault(number, []).append((rule.get("args", ()), action))
    leaves = {number: _leaf(rules, default) for number, rules in by_number.items()}
    code: list[tuple[int, int, int, int]] = [(_LD_W_ABS, 0, 0, _NR)]
    if machine == "x86_64":
        code += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, _ERRNO | _ENOSYS)]
    return (*code, *_tree(_ranges(leaves, default)))


def _action(name: str, errno: int | None) -> int:
    if name == "SCMP_ACT_ERRNO":
        return _ERRNO | (_EPERM if errno is None else errno & 0xFFFF)
    if name == "SCMP_ACT_TRACE":
        return _TRACE | (_EPERM if errno is None else errno & 0xFFFF)
    plain = {
        "SCMP_ACT_ALLOW": _ALLOW,
        "SCMP_ACT_LOG": _LOG,
        "SCMP_ACT_TRAP": _TRAP,
        "SCMP_ACT_KILL": _KILL_THREAD,
        "SCMP_ACT_KILL_THREAD": _KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS": _KILL_PROCESS,
    }
    if name not in plain:
        raise SeccompError(f"unknown seccomp action {name!r}: use one of {', '.join(sorted(plain))}")
    return plain[name]


def _ret(action: int) -> Code:
    return ((_RET, 0, 0, action),)


def _leaf(rules: list[tuple[Sequence[Mapping[str, Any]], int]], default: Code) -> Code:
    """What decides one system call: its conditional rules in order, then its unconditional one or the default."""
    last = default
    code: list[tuple[int, int, int, int]] = []
    for args, action in rules:
        if not args:
            last = _ret(action)
            break
        code += _conditional(args, action)
    return (*code, *last)


def _conditional(args: Sequence[Mapping[str, Any]], action: int) -> list[tuple[int, int, int, int]]:
    code: list[tuple[int, int, int, int]] = [(_RET, 0, 0, action)]
    for arg in reversed(args):
        code = _compare(arg, len(code)) + code
    return code


def _compare(arg: Mapping[str, Any], skip: int) -> list[tuple[int, int, int, int]]:
    """Falls through where the argument satisfies `arg`, else jumps over the `skip` instructions that follow.

    BPF compares 32 bits, arguments have 64: the high word decides unless it is equal.
    """
    value, op = arg["value"], arg["op"]
    low_at, high_at = _ARGS + 8 * arg["index"], _ARGS + 8 * arg["index"] + 4
    low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
    if op == "SCMP_CMP_MASKED_EQ":
        wanted = arg.get("valueTwo", 0)
        return [
            (_LD_W_ABS, 0, 0, high_at),
            (_AND, 0, 0, high),
            (_JEQ, 0, skip + 3, wanted >> 32 & 0xFFFFFFFF),
            (_LD_W_ABS, 0, 0, low_at),
            (_AND, 0, 0, low),
            (_JEQ, 0, skip, wanted & 0xFFFFFFFF),
        ]
    if op == "SCMP_CMP_EQ":
        return [
            (_LD_W_ABS, 0, 0, high_at),
            (_JEQ, 0, skip + 2, high),
            (_LD_W_ABS, 0, 0, low_at),
            (_JEQ, 0, skip, low),
        ]
    if op == "SCMP_CMP_NE":
        return [
            (_LD_W_ABS, 0, 0, high_at),
            (_JEQ, 0, 2, high),
            (_LD_W_ABS, 0, 0, low_at),
            (_JEQ, skip, 0, low),
        ]
    if op in ("SCMP_CMP_GT", "SCMP_CMP_GE"):
        test = _JGT if op == "SCMP_CMP_GT" else _JGE
        return [
            (_LD_W_ABS, 0, 0, high_at),
            (_JGT, 3, 0, high),
            (_JEQ, 0, skip + 2, high),
            (_LD_W_ABS, 0, 0, low_at),
            (test, 0, skip, low),
        ]
    if op in ("SCMP_CMP_LT", "SCMP_CMP_LE"):
        test = _JGE if op == "SCMP_CMP_LT" else _JGT
        return [
            (_LD_W_ABS, 0, 0, high_at),
            (_JGT, skip + 3, 0, high),
            (_JEQ, 0, 2, high),
            (_LD_W_ABS, 0, 0, low_at),
            (test, skip, 0, low),
        ]
    raise SeccompError(f"unknown seccomp comparison {op!r}")


def _ranges(leaves: Mapping[int, Code], default: Code) -> list[tuple[int, Code]]:
    """(first number, code) of each run of numbers that are decided alike, from 0 up."""
    ranges: list[tuple[int, Code]] = [(0, default)]
    for number in sorted(leaves):
        if ranges[-1][1] != leaves[number]:
            if ranges[-1][0] == number:
                ranges.pop()
            ranges.append((number, leaves[number]))
        if number + 1 not in leaves:
            ranges.append((number + 1, default))
    return ranges


def _tree(ranges: list[tuple[int, Code]]) -> Code:
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    left, right = _tree(ranges[:middle]), _tree(ranges[middle:])
    if len(left) <= 255:
        return ((_JGE, len(left), 0, ranges[middle][0]), *left, *right)
    return ((_JGE, 0, 1, ranges[middle][0]), (_JA, 0, 0, len(left)), *left, *right)
