"""`Options` of the service, and the checks that need nothing but the options themselves."""

from __future__ import annotations

import ipaddress
import ssl
import stat
from dataclasses import dataclass
from pathlib import Path

from stageproof.runtime.errors import InputError
from stageproof.runtime.headers.limits import MAX_PIXELS
from stageproof.runtime.inference.arguments import at_least_one
from stageproof.runtime.inference.engine_settings import OptimizeFor

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
_SHORTEST_TOKEN = 16


@dataclass(frozen=True)
class Options:
    """Options of `python -m serving.http`; each is described by its --help."""

    bundle: Path
    name: str = "stageproof"
    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = None
    workers: int = 1
    backend: str | None = None
    precision: str | None = None
    device: str = "cpu"
    threads: int | None = None
    optimize_for: OptimizeFor = "latency"
    abstain_below: float | None = None
    audit: Path | None = None
    audit_key: Path | None = None
    trust_code: bool = False
    trusted_key: Path | None = None
    trusted_digest: str | None = None
    token_file: Path | None = None
    no_token: bool = False
    tls_cert: Path | None = None
    tls_key: Path | None = None
    allow_hosts: tuple[str, ...] = ()
    max_body_mb: int = 64
    max_images: int = 256
    max_pixels: int = MAX_PIXELS
    queue_images: int = 256
    queue_mb: int = 256
    max_batch: int = 64
    max_wait_ms: float = 0.0
    timeout_s: float = 60.0
    header_timeout_s: float = 10.0
    body_timeout_s: float = 30.0
    drain_s: float = 30.0
    max_connections: int = 512
    watch_s: float | None = None
    access_log: bool = True

    @property
    def max_body(self) -> int:
        """Bytes of a request."""
        return self.max_body_mb << 20

    @property
    def is_local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)

    @property
    def hosts(self) -> frozenset[str] | None:
        """Accepted names in the header Host, without ports; None accepts all."""
        if self.is_local:
            return frozenset({*LOOPBACK_NAMES, self.host.lower(), *map(str.lower, self.allow_hosts)})
        if self.allow_hosts:
            return frozenset({self.host.lower(), *map(str.lower, self.allow_hosts)})
        return None

    def check(self) -> None:
        """Raise InputError for options that are out of range or contradict each other."""
        at_least_one(
            **{"--workers": self.workers, "--threads": self.threads, "--max-body-mb": self.max_body_mb},
            **{"--max-images": self.max_images, "--queue-images": self.queue_images, "--queue-mb": self.queue_mb},
            **{"--max-batch": self.max_batch, "--max-connections": self.max_connections},
        )
        for option, port in (("--port", self.port), ("--grpc-port", self.grpc_port)):
            if port is not None and not 0 <= port <= 65535:
                raise InputError(f"{option} is {port}, expected 0 to 65535; 0 takes a free port.")
        if self.grpc_port == self.port and self.port:
            raise InputError(f"--grpc-port is {self.port}, as --port; expected another port.")
        times = {"--timeout-s": self.timeout_s, "--header-timeout-s": self.header_timeout_s}
        times |= {"--body-timeout-s": self.body_timeout_s, "--drain-s": self.drain_s}
        if self.watch_s is not None:
            times["--watch"] = self.watch_s
        for option, seconds in times.items():
            if not 0 < seconds <= 86400:
                raise InputError(f"{option} is {seconds}, expected more than 0 and at most 86400 seconds.")
        if not 0 <= self.max_wait_ms <= 10_000:
            raise InputError(f"--max-wait-ms is {self.max_wait_ms}, expected 0 to 10000.")
        if self.queue_mb < 2 * self.max_body_mb:
            raise InputError(
                f"--queue-mb is {self.queue_mb}, less than twice --max-body-mb ({self.max_body_mb}): a zip file "
                "of that size, which is kept beside what it unpacks to, could not be accepted. Raise --queue-mb, "
                "or lower --max-body-mb."
            )
        if not self.name or not all(letter.isascii() and (letter.isalnum() or letter in "._-") for letter in self.name):
            raise InputError(f"--name is {self.name!r}, expected letters, digits, '.', '_' and '-'.")
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InputError("give both --tls-cert and --tls-key, or neither.")
        if self.token_file is not None and self.no_token:
            raise InputError("give either --token-file or --no-token.")
        if not self.is_local and self.token_file is None and not self.no_token:
            raise InputError(
                f"--host is {self.host}, which other machines can reach, and no token is required of them. Give "
                "--token-file FILE, or --no-token if something in front of the service authenticates clients."
            )


def is_loopback(host: str) -> bool:
    """Whether an address or name is this machine's loopback interface; False for names other than localhost."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def read_token(path: Path) -> bytes:
    """The token in a file. Raises InputError if it cannot be read, is too short, or others can read it."""
    try:
        mode = path.stat().st_mode
        token = path.read_bytes().strip()
    except OSError as error:
        raise InputError(f"--token-file {path} cannot be read ({error.strerror}).") from error
    if stat.S_IMODE(mode) & 0o077:
        raise InputError(f"--token-file {path} can be read by other users. Run: chmod 600 on it.")
    if len(token) < _SHORTEST_TOKEN or not all(33 <= byte <= 126 for byte in token):
        raise InputError(
            f"--token-file {path} has {len(token)} bytes, expected one line of at least {_SHORTEST_TOKEN} printable "
            "ASCII characters without spaces, such as: openssl rand -hex 32."
        )
    return token


def check_tls(certificate: Path | None, key: Path | None) -> None:
    """Raise InputError unless both files are a certificate and its key, or both None."""
    if certificate is None or key is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise InputError(
            f"--tls-cert {certificate} and --tls-key {key} cannot be used ({error}). Expected a PEM certificate chain "
            "and its key without a passphrase."
        ) from error
