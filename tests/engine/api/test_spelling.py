"""Names in requests are read in whatever case, as Go reads them; what users name is left as it is."""

from __future__ import annotations

import pytest

from tests.engine.api.wire import BUSYBOX, Wire

pytestmark = pytest.mark.kernel


def test_a_containers_configuration(wire: Wire) -> None:
    labels = {"Cmd": "x", "cmd": "y"}
    config = {"image": BUSYBOX, "CMD": "true", "labels": labels, "Healthcheck": {"test": "NONE"}}
    host = {"networkmode": "none", "tmpfs": {"/Memory": ""}, "restartpolicy": {"name": "always"}, "memory": 64 << 20}
    made = wire.ask("POST", "/containers/create", config | {"hostconfig": host}).json["Id"]
    wire.ask("POST", f"/containers/{made}/update", {"restartpolicy": {"name": "no"}})
    shown = wire.ask("GET", f"/containers/{made}/json").json
    assert (shown["Config"]["Cmd"], shown["Config"]["Healthcheck"]) == (["true"], {"Test": ["NONE"]})
    assert shown["Config"]["Labels"] == labels
    kept = shown["HostConfig"]
    assert (kept["NetworkMode"], kept["Tmpfs"], kept["Memory"]) == ("none", {"/Memory": ""}, 64 << 20)
    assert kept["RestartPolicy"]["Name"] == "no"


def test_volumes_and_executions(wire: Wire) -> None:
    labels = {"Name": "x", "name": "y"}
    volume = wire.ask("POST", "/volumes/create", {"name": "spelt", "labels": labels}).json
    assert (volume["Name"], volume["Labels"]) == ("spelt", labels)
    assert wire.ask("DELETE", "/volumes/spelt").status == 204
    made = wire.start("speaks")
    execution = wire.ask("POST", f"/containers/{made}/exec", {"cmd": ["true"], "TTY": True, "detachKeys": "ctrl-x"})
    shown = wire.ask("GET", f"/exec/{execution.json['Id']}/json").json
    assert (shown["ProcessConfig"]["tty"], shown["DetachKeys"]) == (True, "GA==")
