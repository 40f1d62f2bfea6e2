from __future__ import annotations

from deploy.releases import Target, container_options
from pipeline.services import NamedService

DIGEST = f"sha256:{'a' * 64}"
IMAGE = f"registry.example.com/web@{DIGEST}"


def target(release: str = "web-7", **service: object) -> Target:
    return Target(
        service=NamedService.model_validate({"name": "web", **service}), release=release, image=IMAGE, digest=DIGEST
    )


def test_replicas_are_named_by_release_and_number():
    assert target(replicas=3).names == ("web-7-1", "web-7-2", "web-7-3")


def test_the_least_of_a_service():
    assert container_options(target(), 1, {}) == {
        "image": IMAGE,
        "name": "web-7-1",
        "hostname": "web-7-1",
        "detach": True,
        "environment": {"SHIPWAY_SERVICE": "web", "SHIPWAY_RELEASE": "web-7"},
        "labels": {
            "shipway.service": "web",
            "shipway.release": "web-7",
            "shipway.digest": DIGEST,
            "shipway.replica": "1",
            # The image is a snapshot of a stage's container, and carries that one's labels.
            "shipway.attempt": "",
            "shipway.owner": "",
        },
        "restart_policy": {"Name": "unless-stopped"},
        "security_opt": ["no-new-privileges"],
        "init": False,
    }


def test_every_key_of_a_service():
    service = target(
        port=8000,
        env={"LOG_LEVEL": "info", "SHIPWAY_RELEASE": "mine"},
        volumes=["data:/var/lib/app"],
        command=["serve", "--all"],
        user="app",
        resources={"memory": "256M", "cpus": 0.5, "pids": 256},
    )
    options = container_options(service, 2, {})
    assert options["labels"]["shipway.port"] == "8000"
    assert options["environment"]["LOG_LEVEL"] == "info"
    assert options["environment"]["SHIPWAY_RELEASE"] == "web-7", "not for the service to say"
    assert options["volumes"] == ["data:/var/lib/app"]
    assert options["command"] == ["serve", "--all"]
    assert options["user"] == "app"
    assert (options["mem_limit"], options["nano_cpus"], options["pids_limit"]) == (256 << 20, 500_000_000, 256)


def test_only_the_secrets_that_were_asked_for():
    options = container_options(target(secrets=["DATABASE_URL", "LOST"]), 1, {"DATABASE_URL": "x", "OTHER": "y"})
    assert options["environment"]["DATABASE_URL"] == "x"
    assert not {"OTHER", "LOST"} & options["environment"].keys()


def test_a_host_name_fits_the_kernel():
    long = target(release=f"{'w' * 63}-1000")
    assert len(container_options(long, 1, {})["hostname"]) == 63
    assert container_options(long, 1, {})["name"] == f"{'w' * 63}-1000-1"
