"""`shipway workers`: the hosts, and how each is."""

from __future__ import annotations

import click

from cli.api import Api
from cli.output import ago, json_option, print_json, print_table


@click.command()
@click.option("--forget", metavar="NAME", help="A host that will not come back: nothing waits for it any more.")
@json_option
def workers(forget: str | None, as_json: bool) -> None:
    """The workers, one a host, and how each is.

    A rollout goes to every host that has the service's labels, and refuses to begin while one of them is lost.

    \b
    Example: shipway workers
             shipway workers --forget web3
    """
    api = Api()
    if forget is not None:
        api.delete(f"/workers/{forget}")
        click.echo(f"{forget} is forgotten; its worker registers again if it comes back")
        return
    answer = api.get("/workers")
    if as_json:
        print_json(answer)
        return
    print_table(
        ["HOST", "STATE", "LABELS", "ENGINE", "RUNNING", "REPLICAS", "SEEN"],
        [
            (
                host["name"],
                host["state"],
                ", ".join(f"{key}={value}" for key, value in host["labels"].items()),
                host["engine"] if host["engine_ok"] else "does not answer",
                host["containers"].get("running", 0),
                len(host["replicas"]),
                ago(host["last_seen"]),
            )
            for host in answer["workers"]
        ],
    )
