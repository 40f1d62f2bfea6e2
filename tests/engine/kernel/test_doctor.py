from __future__ import annotations

from pathlib import Path

import pytest

from engine.kernel import doctor, quota
from engine.kernel.cgroup.offered import offered
from tests import needs


def test_every_finding_says_what_and_every_lack_what_to_do(tmp_path: Path) -> None:
    findings = {finding.name: finding for finding in doctor.inspect_kernel(tmp_path / "not" / "there")}
    assert set(findings) == {
        *("root", "kernel", "namespaces", "user namespaces", "idmapped mounts", "overlayfs", "cgroups", "limits"),
        *("swap accounting", "device rules", "pressure (PSI)", "seccomp", "nftables", "disk quotas"),
    }
    for finding in findings.values():
        assert finding.detail
        assert finding.ok or finding.remedy
    assert findings["swap accounting"].ok == offered().swap
    assert findings["disk quotas"].ok == quota.offered(str(tmp_path))


@pytest.mark.kernel
def test_a_host_that_runs_containers_lacks_nothing_that_is_needed(tmp_path: Path) -> None:
    needs.root()
    assert [finding for finding in doctor.inspect_kernel(tmp_path) if finding.required and not finding.ok] == []


def test_an_older_kernel_is_told_what_it_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_release", lambda: (5, 4))
    findings = {finding.name: finding for finding in doctor.inspect_kernel(tmp_path)}
    assert not findings["kernel"].ok
    assert "5.19" in findings["idmapped mounts"].remedy
