"""`python -m engine` and `shipway engine`: the engine's daemon, with dockerd's own flag names."""

from __future__ import annotations

import ipaddress
import logging
import sys
from dataclasses import replace
from pathlib import Path

import click

from engine.config import DefaultBridge, EngineConfig, TlsFiles
from engine.errors import EngineError

_DEFAULT = EngineConfig()
_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILE = click.Path(path_type=Path, dir_okay=False)


def _labels(values: tuple[str, ...]) -> dict[str, str]:
    pairs = (value.partition("=") for value in values)
    return {key: value for key, _, value in pairs}


def _addresses(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_address(value)
        except ValueError:
            raise click.BadParameter(f"{value} is no IP address") from None
    return values


def _networks(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError as error:
            raise click.BadParameter(f"{error}: write it as 10.1.0.0/16") from None
    return values


def _mirrors(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if not value.startswith(("http://", "https://")):
            raise click.BadParameter(f"{value}: write it as https://HOST[:PORT]")
    return values


def _host(value: str) -> str:
    if "://" not in value:
        return f"unix://{value}" if value.startswith("/") else f"tcp://{value}"
    return value


@click.command(context_settings={"help_option_names": ["--help"]})
@click.option("-H", "--host", "hosts", multiple=True, metavar="URL", help="unix://PATH, tcp://HOST:PORT or fd://.")
@click.option("--data-root", "-g", type=_FOLDER, default=_DEFAULT.data_root, show_default=True)
@click.option("--exec-root", type=_FOLDER, default=_DEFAULT.exec_root, show_default=True)
@click.option("-p", "--pidfile", type=_FILE, help="Where to write the daemon's process id.")
@click.option("-G", "--group", default=_DEFAULT.group, show_default=True, help="Who may use the socket.")
@click.option("--registry-mirror", "mirrors", multiple=True, metavar="URL", callback=_mirrors)
@click.option("--insecure-registry", "insecure", multiple=True, metavar="HOST[:PORT]")
@click.option("--registry-config", type=_FILE, help="A config.json with credentials for clients that send none.")
@click.option(
    "--dns", multiple=True, metavar="ADDRESS", callback=_addresses, help="Resolvers to use instead of the host's."
)
@click.option("--label", "labels", multiple=True, metavar="KEY=VALUE")
@click.option("--default-address-pool", "pools", multiple=True, metavar="base=NET,size=BITS")
@click.option("--bip", metavar="ADDRESS/BITS", default="", help="The default network's gateway and subnet.")
@click.option("--ipv6/--no-ipv6", help="Let the default network have IPv6.")
@click.option("--fixed-cidr-v6", "subnet6", metavar="NET/BITS", default="", help="The default network's IPv6 subnet.")
@click.option(
    "--icc", type=bool, default=True, show_default=True, help="Let the default network's containers reach each other."
)
@click.option("--ip-masq", type=bool, default=True, show_default=True, help="Let them go out by the host's address.")
@click.option("--ip", "host_ip", metavar="ADDRESS", default="", help="Where ports are published that name no address.")
@click.option("--mtu", type=int, default=0, help="Bytes of a packet on the default network.")
@click.option("--tls", is_flag=True, help="Serve tcp:// with TLS; implied by --tlsverify.")
@click.option("--tlsverify", is_flag=True, help="Serve tcp:// with TLS, to clients with a certificate only.")
@click.option("--tlscacert", type=_FILE, default=Path("~/.docker/ca.pem").expanduser())
@click.option("--tlscert", type=_FILE, default=Path("~/.docker/cert.pem").expanduser())
@click.option("--tlskey", type=_FILE, default=Path("~/.docker/key.pem").expanduser())
@click.option("--live-restore", is_flag=True, help="Let containers run on when the daemon is stopped.")
@click.option("--shutdown-timeout", type=float, default=_DEFAULT.shutdown_timeout, show_default=True)
@click.option("--trust-host-ca", is_flag=True, help="Let build steps trust the host's CA certificates.")
@click.option(
    "--build-network",
    "build_networks",
    multiple=True,
    metavar="CIDR",
    callback=_networks,
    help="What else than public addresses a build's ADD and contexts may be fetched from.",
)
@click.option("-D", "--debug", is_flag=True)
@click.option("-l", "--log-level", type=click.Choice(["debug", "info", "warn", "error", "fatal"]), default="info")
def engine(
    hosts: tuple[str, ...],
    data_root: Path,
    exec_root: Path,
    pidfile: Path | None,
    group: str,
    mirrors: tuple[str, ...],
    insecure: tuple[str, ...],
    registry_config: Path | None,
    dns: tuple[str, ...],
    labels: tuple[str, ...],
    pools: tuple[str, ...],
    bip: str,
    ipv6: bool,
    subnet6: str,
    icc: bool,
    ip_masq: bool,
    host_ip: str,
    mtu: int,
    tls: bool,
    tlsverify: bool,
    tlscacert: Path,
    tlscert: Path,
    tlskey: Path,
    live_restore: bool,
    shutdown_timeout: float,
    trust_host_ca: bool,
    build_networks: tuple[str, ...],
    debug: bool,
    log_level: str,
) -> None:
    """Run the isolation engine: a daemon that speaks the Docker Engine API.

    \b
    Example: shipway engine -H unix:///run/shipway/engine.sock --data-root /srv/engine
    Then:    DOCKER_HOST=unix:///run/shipway/engine.sock docker run hello-world
    """
    config = EngineConfig(
        data_root=data_root.absolute(),
        exec_root=exec_root.absolute(),
        hosts=tuple(_host(host) for host in hosts) or (f"unix://{exec_root.absolute()}/engine.sock",),
        pidfile=pidfile,
        group=group,
        registry_mirrors=mirrors,
        insecure_registries=insecure,
        registry_config=registry_config,
        dns=dns,
        labels=_labels(labels),
        default_bridge=DefaultBridge(bip, ipv6, subnet6, icc, ip_masq, mtu, host_ip),
        trust_host_ca=trust_host_ca,
        build_networks=build_networks,
        live_restore=live_restore,
        shutdown_timeout=shutdown_timeout,
    )
    if pools:
        config = replace(config, default_address_pool=";".join(pools))
    if tls or tlsverify:
        authority = tlscacert if tlsverify else None
        config = replace(config, tls=TlsFiles(tlscert, tlskey, authority, verify=tlsverify))
    level = "DEBUG" if debug else {"warn": "WARNING", "fatal": "CRITICAL"}.get(log_level, log_level.upper())
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr)
    # Only here: so that --help answers at once.
    from engine.daemon import serve

    try:
        serve(config)
    except EngineError as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    engine(prog_name="shipway engine")
