"""git, told to trust nothing: no system or user configuration, no hooks, no prompts, no odd transports."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from pipeline.errors import SourceError

_SHA = re.compile(r"[0-9a-f]{40}([0-9a-f]{24})?")
_SCP = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.-]+:[^:\s-][^:\s]*")
_SCHEMES = frozenset({"https", "http", "ssh", "file"})
MAX_FILE = 1 << 20
MAX_CHANGED = 20_000
FETCH_SECONDS = 300.0
_CONFIG = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.autocrlf": "false",
    "credential.helper": "",
    "fetch.fsckObjects": "true",
    "fetch.recurseSubmodules": "false",
    "gc.auto": "0",
    "http.followRedirects": "initial",
    "protocol.allow": "never",
    "protocol.https.allow": "always",
    "protocol.http.allow": "always",
    "protocol.ssh.allow": "always",
    "protocol.file.allow": "always",
    "safe.directory": "*",
    "submodule.recurse": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "main",
}
# Odd but valid modes and dates in old histories are no danger to us; the rest of fsck's checks are kept.
_CONFIG |= {f"fetch.fsck.{name}": "ignore" for name in ("zeroPaddedFilemode", "missingSpaceBeforeDate", "badTimezone")}


@dataclass(frozen=True)
class Commit:
    sha: str
    committed: float
    author: str
    message: str


def check_url(url: str) -> str:
    """The url, if it is one that we let git see. Raises SourceError."""
    if url.isprintable() and (url.startswith("/") or _SCP.fullmatch(url) or _scheme(url) in _SCHEMES):
        return url
    raise SourceError(f"{url[:200]!r} is not a repository's address: use https, ssh, file or an absolute path")


def _scheme(url: str) -> str:
    try:
        return urlsplit(url).scheme if "://" in url else ""
    except ValueError:  # such as brackets that hold no address
        return ""


def check_sha(sha: str) -> str:
    if not _SHA.fullmatch(sha):
        raise SourceError(f"{sha[:80]!r} is not a commit: 40 hexadecimal digits are")
    return sha


class Source:
    """One commit of a remote repository, fetched into a folder of our own. A context manager: the folder goes."""

    def __init__(self, url: str, sha: str, *, ref: str = "", token: str | None = None) -> None:
        self.url = check_url(url)
        self.sha = check_sha(sha)
        self.ref = ref if re.fullmatch(r"refs/(heads|tags)/[^\s~^:?*\[\\-][^\s~^:?*\[\\]*", ref) else ""
        self.token = token
        self._folder = Path(tempfile.mkdtemp(prefix="shipway-git-"))
        try:
            self._git("init", "--quiet", "--bare", str(self._folder))
            self.fetch(self.sha)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def fetch(self, sha: str, *, timeout: float = FETCH_SECONDS) -> None:
        """The commit alone, without its history. A server that gives out only tips is asked for the ref."""
        try:
            self._fetch(check_sha(sha), timeout)
        except SourceError:
            if not self.ref:
                raise
            self._git("fetch", "--quiet", "--no-tags", "--", self._remote(), self.ref, timeout=timeout)
            if not self.has(sha):
                raise SourceError(f"commit {sha[:12]} is not in {self.ref} of {self.url}: was it replaced?") from None

    def _fetch(self, sha: str, timeout: float) -> None:
        self._git("fetch", "--quiet", "--depth=1", "--no-tags", "--", self._remote(), sha, timeout=timeout)

    def has(self, sha: str) -> bool:
        try:
            self._git("cat-file", "-e", f"{check_sha(sha)}^{{commit}}")
        except SourceError:
            return False
        return True

    def default_branch(self) -> str:
        """The remote's own, as refs/heads/main; "" when it names none."""
        out = self._git("ls-remote", "--symref", "--", self._remote(), "HEAD").decode(errors="replace")
        found = re.match(r"ref: (refs/heads/\S+)\tHEAD\n", out)
        return found[1] if found else ""

    def commit(self) -> Commit:
        out = self._git("show", "--no-patch", "--no-show-signature", "--format=%ct%x00%an%x00%B", self.sha)
        when, author, message = out.decode(errors="replace").split("\0", 2)
        return Commit(self.sha, float(when.split("\n")[-1]), author[:200], message.strip()[:10_000])

    def read(self, path: str) -> str:
        """A file of the commit as text. Raises SourceError when it is no regular file, too large or not UTF-8."""
        listing = self._git("ls-tree", "-l", "-z", self.sha, "--", path).decode(errors="replace")
        entries = [entry for entry in listing.split("\0") if entry]
        if len(entries) != 1 or entries[0].split("\t", 1)[1] != path:
            raise SourceError(f"{path}: there is no such file at commit {self.sha[:12]}: add it and push")
        mode, _, blob, size = entries[0].split("\t", 1)[0].split()
        if mode not in ("100644", "100755"):
            raise SourceError(f"{path}: this is not a regular file at commit {self.sha[:12]}")
        if int(size) > MAX_FILE:
            raise SourceError(f"{path}: the file is larger than 1 MiB")
        try:
            return self._git("cat-file", "blob", blob).decode()
        except UnicodeDecodeError:
            raise SourceError(f"{path}: the file is not UTF-8 text") from None

    def changed(self, before: str) -> list[str] | None:
        """Paths that differ from another commit; None when that one can't be had, or there are too many."""
        if not _SHA.fullmatch(before) or not before.strip("0"):
            return None
        try:
            if not self.has(before):
                self._fetch(before, 60.0)
            out = self._git("diff", "--name-only", "--no-renames", "-z", before, self.sha)
        except SourceError:
            return None
        paths = [path for path in out.decode(errors="surrogateescape").split("\0") if path]
        return paths if len(paths) <= MAX_CHANGED else None

    def checkout(self, folder: Path) -> None:
        """The commit's files into an empty or absent folder, without .git."""
        folder.mkdir(parents=True, exist_ok=True)
        self._git(
            f"--work-tree={folder.absolute()}", "-c", "core.bare=false", "checkout", "--quiet", "--force",
            self.sha, "--", ".", cwd=folder,
        )  # fmt: skip

    def _remote(self) -> str:
        """The address; a token travels in the environment's configuration, never on a command line."""
        return self.url

    def _git(self, *args: str, timeout: float = 60.0, cwd: Path | None = None) -> bytes:
        return run_git(*args, git_dir=self._folder, timeout=timeout, cwd=cwd, token=self.token, url=self.url)


def run_git(
    *args: str,
    git_dir: Path | None = None,
    timeout: float = 60.0,
    cwd: Path | None = None,
    token: str | None = None,
    url: str = "",
) -> bytes:
    """Runs git with nothing inherited but PATH. Gives stdout; raises SourceError with git's own last words."""
    config = dict(_CONFIG)
    if token and urlsplit(url).scheme == "https":
        from base64 import b64encode

        basic = b64encode(f"x-access-token:{token}".encode()).decode()
        config[f"http.{_origin(url)}.extraHeader"] = f"Authorization: Basic {basic}"
    process = subprocess.Popen(
        ["git", *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=_environment(config, git_dir),
        cwd=cwd or git_dir or "/",
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise SourceError(f"git took longer than {timeout:.0f} s with {url or args[0]}: try again") from None
    if process.returncode != 0:
        raise SourceError(_last_words(errors, args, url))
    return out


def _environment(config: dict[str, str], git_dir: Path | None) -> dict[str, str]:
    environment = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": str(Path(__file__).with_name("gitconfig")),
        "GIT_ATTR_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_SSH_COMMAND": os.environ.get("GIT_SSH_COMMAND", "ssh -oBatchMode=yes -oConnectTimeout=15"),
        "GIT_LFS_SKIP_SMUDGE": "1",
        "GIT_NO_REPLACE_OBJECTS": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_CONFIG_COUNT": str(len(config)),
    }
    for name in ("SSH_AUTH_SOCK", "SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "https_proxy", "no_proxy"):
        if name in os.environ:
            environment[name] = os.environ[name]
    if git_dir is not None:
        environment["GIT_DIR"] = str(git_dir)
    for number, (key, value) in enumerate(config.items()):
        environment[f"GIT_CONFIG_KEY_{number}"] = key
        environment[f"GIT_CONFIG_VALUE_{number}"] = value
    return environment


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], "/", "", ""))


def _last_words(errors: bytes, args: tuple[str, ...], url: str) -> str:
    lines = [line.strip() for line in errors.decode(errors="replace").splitlines() if line.strip()]
    fatal = next((line for line in lines if line.startswith(("fatal:", "error:", "git:"))), lines[-1] if lines else "")
    command = next((arg for arg in args if not arg.startswith("-") and "=" not in arg), "git")
    return f"git {command} {url}: {fatal.removeprefix('fatal: ').removeprefix('error: ')[:500] or 'failed'}".strip()


def checkout(url: str, sha: str, folder: Path, *, ref: str = "", token: str | None = None) -> None:
    """The files of a commit into a folder. Raises SourceError."""
    with Source(url, sha, ref=ref, token=token) as source:
        source.checkout(folder)
