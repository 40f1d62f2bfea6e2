"""A seccomp profile in Docker's JSON → the filter of one container, as the OCI runtime-spec words it.

The profile's conditions (capabilities, architectures, kernel) are settled here; compiling is the runtime's.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Collection, Mapping
from typing import Any

import msgspec

from engine.containers.seccomp_default import profile as default_profile
from engine.errors import InvalidInput
from engine.runtime.spec import LinuxSeccomp

_GO_ARCH = {
    "x86_64": "amd64",
    "aarch64": "arm64",
    "armv7l": "arm",
    "i686": "x86",
    "ppc64le": "ppc64le",
    "riscv64": "riscv64",
    "s390x": "s390x",
}
_SECCOMP_ARCH = {
    "amd64": "SCMP_ARCH_X86_64",
    "arm64": "SCMP_ARCH_AARCH64",
    "arm": "SCMP_ARCH_ARM",
    "x86": "SCMP_ARCH_X86",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
}
_LARGEST = 4 << 20


@functools.lru_cache(maxsize=64)
def default_filter(capabilities: frozenset[str]) -> LinuxSeccomp:
    """The default profile for a container that holds these capabilities."""
    return resolve(default_profile(), capabilities)


def parse(text: str) -> dict[str, Any]:
    """A custom profile. Raises InvalidInput."""
    if len(text) > _LARGEST:
        raise InvalidInput(f"seccomp profile of {len(text)} bytes: at most {_LARGEST} are read")
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"Decoding seccomp profile failed: {error}") from None
    if not isinstance(raw, dict):
        raise InvalidInput("Decoding seccomp profile failed: the profile must be a JSON object")
    return raw


def resolve(
    profile: Mapping[str, Any],
    capabilities: Collection[str],
    *,
    arch: str | None = None,
    kernel: tuple[int, int] | None = None,
) -> LinuxSeccomp:
    """Docker's profile → OCI's. `arch` in Go's words and `kernel` are this machine's unless given.

    Raises InvalidInput where the profile does not have its shape.
    """
    arch = arch or _GO_ARCH.get(platform.machine(), platform.machine())
    kernel = kernel or _kernel_version()
    try:
        rules = [
            rule
            for group in profile.get("syscalls") or ()
            if _applies(group, capabilities, arch, kernel)
            for rule in (_rule(group),)
        ]
        resolved = {
            "defaultAction": profile["defaultAction"],
            "architectures": _architectures(profile, arch),
            "flags": list(profile.get("flags") or ()),
            "syscalls": rules,
        }
        if profile.get("defaultErrnoRet") is not None:
            resolved["defaultErrnoRet"] = profile["defaultErrnoRet"]
        return msgspec.convert(resolved, LinuxSeccomp)
    except (KeyError, TypeError, AttributeError, ValueError, msgspec.ValidationError) as error:
        raise InvalidInput(f"Decoding seccomp profile failed: {error}") from None


def _kernel_version() -> tuple[int, int]:
    return _version(os.uname().release)


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    digits = ""
    for character in rest:
        if not character.isdigit():
            break
        digits += character
    return int(major), int(digits or 0)


def _architectures(profile: Mapping[str, Any], arch: str) -> list[str]:
    if profile.get("architectures"):
        return list(profile["architectures"])
    native = _SECCOMP_ARCH.get(arch)
    for entry in profile.get("archMap") or ():
        if entry["architecture"] == native:
            return [native, *(entry.get("subArchitectures") or ())]
    return [native] if native else []


def _applies(group: Mapping[str, Any], capabilities: Collection[str], arch: str, kernel: tuple[int, int]) -> bool:
    includes, excludes = group.get("includes") or {}, group.get("excludes") or {}
    if any(capability in capabilities for capability in excludes.get("caps") or ()):
        return False
    if arch in (excludes.get("arches") or ()):
        return False
    if excludes.get("minKernel") and kernel >= _version(excludes["minKernel"]):
        return False
    if any(capability not in capabilities for capability in includes.get("caps") or ()):
        return False
    if includes.get("arches") and arch not in includes["arches"]:
        return False
    return not (includes.get("minKernel") and kernel < _version(includes["minKernel"]))


def _rule(group: Mapping[str, Any]) -> dict[str, Any]:
    names = list(group.get("names") or ())
    if group.get("name"):
        names.append(group["name"])
    rule: dict[str, Any] = {"names": names, "action": group["action"]}
    if group.get("errnoRet") is not None:
        rule["errnoRet"] = group["errnoRet"]
    if group.get("args"):
        rule["args"] = [dict(argument) for argument in group["args"]]
    return rule
