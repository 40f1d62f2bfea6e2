from __future__ import annotations

from engine.kernel.doctor import inspect_kernel


def test_every_finding_says_what_and_every_lack_what_to_do() -> None:
    findings = {finding.name: finding for finding in inspect_kernel()}
    assert {"root", "kernel", "namespaces", "overlayfs", "cgroups", "seccomp", "nftables"} <= set(findings)
    for finding in findings.values():
        assert finding.detail
        assert finding.ok or finding.remedy
