"""The host's certificate authorities for build steps that download: shown to steps, never put in images."""

from __future__ import annotations

import os
from pathlib import Path

TARGET = "/dev/shipway/ca-certificates.crt"
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
# What OpenSSL, requests, curl, pip, Node.js, git, Nix and the AWS tools read.
VARIABLES = (
    "SSL_CERT_FILE",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "NIX_SSL_CERT_FILE",
    "AWS_CA_BUNDLE",
)


def host_bundle() -> Path | None:
    """The file with the host's trusted certificates, where there is one."""
    for name in (os.environ.get("SSL_CERT_FILE", ""), *_BUNDLES):
        if name and Path(name).is_file():
            return Path(name)
    return None
