"""A BPF interpreter, for asking a seccomp filter without loading it."""

from __future__ import annotations

import struct

ALLOW, EPERM, KILL = 0x7FFF0000, 0x00050001, 0x80000000
ARCH = 0xC000003E


def decide(program: bytes, number: int, args: tuple[int, ...] = (), arch: int = ARCH) -> int:
    """Runs classic BPF over seccomp_data as the kernel does (Documentation/networking/filter.rst)."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(args + (0,) * 6)[:6])
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, jt, jf, k = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x06:
            return k
        elif code == 0x05:
            at += k
        elif code == 0x54:
            accumulator &= k
        else:
            passed = {0x15: accumulator == k, 0x25: accumulator > k, 0x35: accumulator >= k}[code]
            at += jt if passed else jf
