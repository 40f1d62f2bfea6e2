"""Tells the story: `python -m scripts.story [--exit]`."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click
import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from scripts.baseimages import BUSYBOX, busybox_root
from scripts.story.narrator import Narrator, StoryFailedError
from scripts.story.repository import Repository
from scripts.story.system import Ports, System
from scripts.story.visitor import Visitor

_ROOT = Path(__file__).resolve().parents[2]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--exit", "leave", is_flag=True, help="Tear everything down at the end instead of staying up.")
@click.option("--server-port", default=7700, show_default=True)
@click.option("--registry-port", default=7750, show_default=True)
@click.option("--metrics-port", default=7701, show_default=True)
@click.option("--publish-port", default=8080, show_default=True, help="Where the example service is reached.")
def main(leave: bool, server_port: int, registry_port: int, metrics_port: int, publish_port: int) -> None:
    """Show a service being pushed, built, tested, rolled out and protected from two bad pushes."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    folder = Path(tempfile.mkdtemp(prefix="shipway-demo-"))
    ports = Ports(server_port, registry_port, metrics_port, publish_port)
    system = System(folder / "data", ports)
    repository = Repository(folder / "git")
    narrator = Narrator()
    failed = None
    try:
        try:
            _tell(narrator, system, repository)
            if not leave:
                _stay(system, ports)
        except KeyboardInterrupt:
            print("\nstopping", flush=True)
        finally:
            # Also when nobody reads the story to its end (`| head`).
            system.stop()
    except (StoryFailedError, RuntimeError, DockerException, requests.RequestException) as error:
        failed = str(error)
    if failed:
        print(f"\nThe story broke at {narrator.clock:.2f} s: {failed}", file=sys.stderr)
        print(f"The logs are in {system.data / 'logs'}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(folder)
    narrator.say("everything is stopped, and nothing is left behind")


def _tell(narrator: Narrator, system: System, repository: Repository) -> None:
    narrator.chapter("1. shipway up")
    system.configure(repository)
    narrator.quote(system.start())
    doctor = system.command("doctor")
    narrator.quote(doctor.stdout + doctor.stderr)
    narrator.expect(doctor.returncode == 0, "shipway doctor is happy with this host")

    narrator.chapter("2. A base image")
    narrator.say(_base_image(system))

    narrator.chapter("3. A service is pushed for the first time")
    repository.create(f"{system.url}/hooks/generic", f"localhost:{system.ports.registry}", system.ports.publish)
    narrator.expect(_push(narrator, system, repository, "Greet the world") == "passed", "version 1 is live")
    visitor = Visitor(system.ports.publish)
    visitor.start()
    try:
        _later_versions(narrator, system, repository, visitor)
    finally:
        visitor.stop()

    narrator.chapter("7. What is running")
    narrator.quote(system.command("services").stdout)
    narrator.quote(system.command("runs").stdout)


def _later_versions(narrator: Narrator, system: System, repository: Repository, visitor: Visitor) -> None:
    _wait_for_version(visitor, "1")

    narrator.chapter("4. Version 2, while a visitor asks for the page without a pause")
    repository.write("VERSION", "2\n")
    narrator.expect(_push(narrator, system, repository, "Version 2") == "passed", "version 2 is live")
    _wait_for_version(visitor, "2")
    narrator.expect(
        visitor.versions == ["1", "2"] or _mixed_then_settled(visitor.versions),
        f"the visitor saw version 1, then 2: {len(visitor.answers)} requests",
    )
    narrator.expect(not visitor.failures, "not one of them failed")

    narrator.chapter("5. Version 3 breaks a test")
    greetings = repository.read("site/greetings.txt")
    repository.write("VERSION", "3\n")
    repository.write("site/greetings.txt", "Hello\n")
    narrator.expect(_push(narrator, system, repository, "Version 3") == "failed", "version 3 stopped there")

    narrator.chapter("6. Version 4 passes its tests, and is not healthy once it is live")
    repository.write("VERSION", "4\n")
    repository.write("site/greetings.txt", greetings)
    dockerfile = repository.read("Dockerfile")
    repository.write(
        "Dockerfile",
        dockerfile.replace("GREETINGS=/srv/greetings.txt", "GREETINGS=/srv/greetings.yaml"),
    )
    narrator.expect(_push(narrator, system, repository, "Version 4") == "failed", "version 4 was undone")
    narrator.expect(
        visitor.answers[-1].version == "2" and "4" not in visitor.versions,
        "version 2 still answers, and nobody ever saw version 4",
    )
    narrator.expect(not visitor.failures, f"all in all {len(visitor.answers)} requests, not one of them failed")


def _push(narrator: Narrator, system: System, repository: Repository, message: str) -> str:
    """Pushes, tells each stage as it ends, and why one failed; returns how the run ended."""
    commit, said = repository.push(message)
    narrator.say(f"git push {commit[:12]}: {message}")
    narrator.quote(said)
    run = system.run_of(commit)
    for stage in system.follow(run):
        took = stage["duration"]
        narrator.say(f"{stage['name']:<12} {stage['state']:<9}" + (f" in {took:.2f} s" if took is not None else ""))
        if stage["state"] == "failed":
            said = system.command("logs", f"{run}/{stage['name']}", "--tail", "6").stdout
            narrator.quote(said if stage["reason"] in said else f"{said}{stage['reason']}")
    return str(system.get(f"/runs/{run}")["state"])


def _mixed_then_settled(versions: list[str]) -> bool:
    """While a rolling rollout runs, both versions answer; it must begin with 1 and settle on 2."""
    return versions[0] == "1" and versions[-1] == "2" and set(versions) == {"1", "2"}


def _wait_for_version(visitor: Visitor, version: str, timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not visitor.versions or visitor.versions[-1] != version:
        if time.monotonic() > deadline:
            seen = visitor.answers[-1] if visitor.answers else "nothing"
            raise StoryFailedError(f"the visitor never saw version {version}; the last answer was {seen}")
        time.sleep(0.01)


def _base_image(system: System) -> str:
    """Pulls the base image where a public registry answers, else makes it from Debian's busybox-static."""
    engine = docker.DockerClient(base_url=system.engine_url, timeout=60)
    try:
        try:
            engine.images.get(BUSYBOX)
            return f"{BUSYBOX} is there already"
        except ImageNotFound:
            pass
        try:
            engine.images.pull(BUSYBOX)
            return f"{BUSYBOX} was pulled from its public registry"
        except APIError:
            name, tag = BUSYBOX.split(":")
            engine.api.import_image_from_data(busybox_root(), repository=name, tag=tag)
            return f"no public registry answers: {BUSYBOX} was made from Debian's busybox-static"
    finally:
        engine.close()


def _stay(system: System, ports: Ports) -> None:
    print(
        f"""
It stays up until Ctrl-C. Try:

  the page             {system.url}
  the service          curl http://127.0.0.1:{ports.publish}/
  what is running      {_shipway(system)} services
  go back to v1        {_shipway(system)} rollback web
  the images           docker -H {system.engine_url} images
"""
    )
    while True:
        signal.pause()


def _shipway(system: System) -> str:
    command = _ROOT / ".venv" / "bin" / "shipway"
    return f"SHIPWAY_SERVER_URL={system.url} {os.path.relpath(command)}"


main()
