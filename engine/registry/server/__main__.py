"""`python -m engine.registry.server --root DIR`: the registry alone."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from engine.errors import EngineError
from engine.registry.server.app import Upkeep, serve, tls_of
from engine.registry.server.storage.collect import Rule


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m engine.registry.server", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=7750, help="0 lets the system choose (default: %(default)s)")
    parser.add_argument("--root", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--realm", help="URL of /v2/token as clients see it, where a proxy stands before this one")
    parser.add_argument("--certificate", type=Path, help="serve TLS with this chain (PEM)")
    parser.add_argument("--key", type=Path, help="the certificate's private key, where it is not in the same file")
    parser.add_argument("--keep", type=int, help="keep so many tags of each repository (default: all)")
    parser.add_argument(
        "--collect-every", type=float, default=3600, metavar="SECONDS", help="0 is never (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        tls = tls_of(options.certificate, options.key)
        upkeep = Upkeep(options.collect_every, Rule(keep=options.keep))
        asyncio.run(serve(options.host, options.port, options.root, tls=tls, upkeep=upkeep, realm=options.realm))
    except (EngineError, OSError) as error:
        print(f"registry: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
