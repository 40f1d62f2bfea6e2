from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.kernel.seccomp import SeccompError, compile_filter
from engine.kernel.syscalls import NUMBERS
from tests.engine.kernel.bpf import ALLOW, EPERM, KILL, decide

X86 = NUMBERS["x86_64"]


def compiled(default: str, *rules: dict[str, Any]) -> bytes:
    return compile_filter({"defaultAction": default, "syscalls": list(rules)}, "x86_64")


def allow(*names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names), "action": "SCMP_ACT_ALLOW", **more}


@given(st.sets(st.sampled_from(sorted(X86))))
def test_each_call_is_decided_as_the_profile_says(allowed: set[str]) -> None:
    program = compiled("SCMP_ACT_ERRNO", allow(*allowed))
    for name, number in X86.items():
        assert decide(program, number) == (ALLOW if name in allowed else EPERM), name
    assert decide(program, 100_000) == EPERM


def test_other_architectures_are_killed_and_x32_is_not_there() -> None:
    program = compiled("SCMP_ACT_ALLOW")
    assert decide(program, 1, arch=0x40000003) == KILL
    assert decide(program, 0x40000001) == 0x00050000 | 38


COMPARISONS = {
    "SCMP_CMP_EQ": lambda given, value: given == value,
    "SCMP_CMP_NE": lambda given, value: given != value,
    "SCMP_CMP_LT": lambda given, value: given < value,
    "SCMP_CMP_LE": lambda given, value: given <= value,
    "SCMP_CMP_GT": lambda given, value: given > value,
    "SCMP_CMP_GE": lambda given, value: given >= value,
}
WORDS = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**64 - 1]))


@given(st.sampled_from(sorted(COMPARISONS)), WORDS, WORDS, st.integers(0, 5))
def test_arguments_are_compared_with_all_their_64_bits(op: str, value: int, given_value: int, index: int) -> None:
    program = compiled("SCMP_ACT_ERRNO", allow("personality", args=[{"index": index, "value": value, "op": op}]))
    args = tuple(given_value if position == index else 7 for position in range(6))
    expected = ALLOW if COMPARISONS[op](given_value, value) else EPERM
    assert decide(program, X86["personality"], args) == expected


@given(WORDS, WORDS, WORDS)
def test_masked_comparison(mask: int, wanted: int, given_value: int) -> None:
    rule = {"index": 0, "value": mask, "valueTwo": wanted, "op": "SCMP_CMP_MASKED_EQ"}
    program = compiled("SCMP_ACT_ERRNO", allow("clone", args=[rule]))
    expected = ALLOW if given_value & mask == wanted else EPERM
    assert decide(program, X86["clone"], (given_value,)) == expected


def test_all_arguments_of_a_rule_must_match_and_any_rule_is_enough() -> None:
    both = [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 3, "op": "SCMP_CMP_EQ"}]
    other = [{"index": 0, "value": 9, "op": "SCMP_CMP_EQ"}]
    program = compiled("SCMP_ACT_ERRNO", allow("socket", args=both), allow("socket", args=other))
    assert decide(program, X86["socket"], (2, 3)) == ALLOW
    assert decide(program, X86["socket"], (2, 4)) == EPERM
    assert decide(program, X86["socket"], (9, 4)) == ALLOW


def test_errno_values_and_unknown_calls() -> None:
    program = compiled(
        "SCMP_ACT_ALLOW", {"names": ["mount", "no_such_call"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}
    )
    assert decide(program, X86["mount"]) == 0x00050000 | 38


def test_an_unknown_action_is_named() -> None:
    with pytest.raises(SeccompError, match="SCMP_ACT_NOTHING"):
        compiled("SCMP_ACT_NOTHING")


def test_the_numbers_of_both_architectures() -> None:
    assert (X86["openat"], X86["clone3"], X86["mseal"]) == (257, 435, 462)
    arm = NUMBERS["aarch64"]
    assert (arm["openat"], arm["clone3"], arm["mmap"], arm["fcntl"]) == (56, 435, 222, 25)


def test_programs_of_i386_run_where_the_profile_names_it() -> None:
    i386 = 0x40000003
    section = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [allow("read", "socketcall", "clone3")]}
    alone = compile_filter(section, "x86_64")
    both = compile_filter({**section, "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]}, "x86_64")
    old = NUMBERS["i386"]

    assert decide(alone, old["read"], arch=i386) == KILL
    for name in ("read", "socketcall", "clone3"):
        assert decide(both, old[name], arch=i386) == ALLOW
    assert decide(both, old["mount"], arch=i386) == EPERM
    assert decide(both, X86["read"]) == ALLOW
    assert decide(both, old["read"]) == EPERM
    assert decide(both, 1, arch=0xC00000B7) == KILL
