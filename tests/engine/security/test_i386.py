"""Programs of i386 in containers of x86-64: they run, under the same filter."""

from __future__ import annotations

import platform
import struct
from pathlib import Path

import pytest

from engine.kernel.syscalls import NUMBERS
from tests.engine.security.conftest import Attacker

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="i386 runs on x86-64 only"),
]
_BASE, _HEADERS = 0x08048000, 84


def _program(call: int) -> bytes:
    """An ELF file of 32 bits that makes one call without arguments and exits with the negative of what it answered."""
    code = b"\xb8" + struct.pack("<I", call) + b"\x31\xdb\x31\xc9\x31\xd2\xcd\x80"  # mov eax, call; 0s; int 0x80
    code += b"\xf7\xd8\x89\xc3\xb8\x01\x00\x00\x00\xcd\x80"  # neg eax; mov ebx, eax; mov eax, 1 (exit); int 0x80
    header = b"\x7fELF\x01\x01\x01" + bytes(9)
    header += struct.pack("<HHIIIIIHHHHHH", 2, 3, 1, _BASE + _HEADERS, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    size = _HEADERS + len(code)
    return header + struct.pack("<8I", 1, 0, _BASE, _BASE, size, size, 5, 0x1000) + code


@pytest.mark.parametrize(("name", "code"), [("close", 0), ("unshare", 1), ("keyctl", 1)])
async def test_a_call_is_decided_by_its_own_table(attacker: Attacker, tmp_path: Path, name: str, code: int) -> None:
    binary = tmp_path / "program"
    binary.write_bytes(_program(NUMBERS["i386"][name]))
    binary.chmod(0o755)

    made = await attacker.rooms.start("/program", host=attacker.host(Binds=[f"{binary}:/program:ro"]))
    exited = await attacker.rooms.containers.wait(made)
    await attacker.rooms.containers.remove(made)

    assert exited.code == code
