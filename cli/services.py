"""`shipway services`, `releases`, `deploy`, `rollback`."""

from __future__ import annotations

from typing import Any

import click

from cli.api import Api, me
from cli.follow import follow_run
from cli.output import ago, json_option, print_json, print_table, span


@click.command()
@json_option
def services(as_json: bool) -> None:
    """What is running where.

    Example: shipway services
    """
    answer = Api().get("/services")
    if as_json:
        print_json(answer)
        return
    rows = []
    for service in answer["services"]:
        release = service.get("release") or {}
        for host in service.get("hosts") or [{}]:
            replicas = host.get("replicas", [])
            healthy = sum(replica["state"] == "healthy" for replica in replicas)
            rows.append(
                (
                    service["name"],
                    release.get("id", ""),
                    release.get("commit", "")[:12],
                    host.get("host", ""),
                    f"{healthy}/{service['spec']['replicas']} healthy",
                    service["spec"].get("publish") or "",
                    ago(release.get("live")),
                )
            )
    print_table(["SERVICE", "RELEASE", "COMMIT", "HOST", "REPLICAS", "PORT", "LIVE"], rows)


@click.command()
@click.argument("service")
@json_option
def releases(service: str, as_json: bool) -> None:
    """Every release of SERVICE, the newest first: how its rollout ended, when, by whom, which image.

    Example: shipway releases web
    """
    answer = Api().get(f"/services/{service}/releases")
    if as_json:
        print_json(answer)
        return
    print_table(
        ["RELEASE", "STATE", "OUTCOME", "WHEN", "TOOK", "WHO", "DIGEST", "COMMIT", "RUN", "WHY"],
        [
            (
                release["id"],
                release["state"],
                release["outcome"] or "",
                ago(release["started"] or release["created"]),
                span(release["started"], release["finished"]),
                release["who"],
                release["digest"][:19],
                release["commit"][:12],
                release["run"],
                release["error"] or release["reason"],
            )
            for release in answer["releases"]
        ],
    )


@click.command()
@click.argument("service")
@click.argument("image", required=False)
@click.option("--detach", "-d", is_flag=True, help="Do not wait for the rollout.")
@json_option
def deploy(service: str, image: str | None, detach: bool, as_json: bool) -> None:
    """Roll IMAGE out as SERVICE; without IMAGE, its live release once more.

    Example: shipway deploy web localhost:7750/web@sha256:…
    """
    _roll(f"/services/{service}/deploy", {"image": image} if image else {}, detach, as_json)


@click.command()
@click.argument("service")
@click.argument("release", required=False)
@click.option("--detach", "-d", is_flag=True, help="Do not wait for the rollout.")
@json_option
def rollback(service: str, release: str | None, detach: bool, as_json: bool) -> None:
    """Take SERVICE back to RELEASE; without it, to the one that was live before.

    Example: shipway rollback web
    """
    _roll(f"/services/{service}/rollback", {"release": release} if release else {}, detach, as_json)


def _roll(path: str, body: dict[str, Any], detach: bool, as_json: bool) -> None:
    api = Api()
    run = api.post(path, {**body, "who": me()})
    if as_json:
        print_json(run)
    elif detach:
        click.echo(f"run {run['id']}")
    if not detach:
        follow_run(api, run["id"], quiet=as_json)
