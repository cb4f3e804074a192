"""`python -m serving.http BUNDLE --port PORT`: serve a bundle over HTTP and gRPC."""

from __future__ import annotations

import argparse
import logging
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from stageproof.runtime.backends import BACKENDS, DEVICES
from stageproof.runtime.cli.exit_status import exit_status, report_error
from stageproof.runtime.cli.extras import require
from stageproof.runtime.cli.messages import shown
from stageproof.runtime.errors import InputError, StageproofError
from stageproof.runtime.inference.arguments import check_bundle_path
from stageproof.runtime.text.hints import command, program
from stageproof.serving.http.hangups import held_back
from stageproof.serving.http.logs import ServiceHandler
from stageproof.serving.http.options import Options, check_tls, read_token

logger = logging.getLogger("stageproof.serving.http")  # __name__ is __main__ under python -m

_EPILOG = """\
Signals: SIGTERM answers what was accepted and ends; SIGHUP loads the bundle
again, which replaces the old one only if it is verified and self-tested.

Exit status: 0 stopped by a signal, 1 failed, 2 invalid usage or bundle.
Research use only: not a medical device.
"""


@shown(ServiceHandler)
def main(argv: Sequence[str] | None = None) -> int:
    """Exit status of the command."""
    parser = _parser()
    given = parser.parse_args(argv)
    try:
        require("serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client")
        if given.grpc_port is not None:
            require("serve", "grpc", "google.protobuf")
        if given.bundle is None:
            parser.error(f"no bundle was given. For example: {command('serving.http', 'bundle', '--port', '8000')}")
        with held_back():
            return _run(Options(**{**vars(given), "allow_hosts": tuple(given.allow_hosts)}))
    except StageproofError as error:
        return report_error(error)


def _run(options: Options) -> int:
    options.check()
    check_bundle_path(options.bundle, **{"--audit": options.audit})
    token = None if options.token_file is None else read_token(options.token_file)
    check_tls(options.tls_cert, options.tls_key)
    with _bound(options.host, options.port) as listener:
        _announce(options, listener.getsockname()[1])
        if options.workers == 1:
            from stageproof.serving.http.process import serve

            serve(options, listener, token)
            return 0
        from stageproof.serving.http.supervisor import supervise

        return supervise(options, listener, token)


def _bound(host: str, port: int) -> socket.socket:
    listener = None
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)  # so that a second service on this port fails here; uvicorn sets the backlog
    except OSError as error:
        if listener is not None:
            listener.close()
        raise InputError(
            f"--host {host} --port {port} cannot be bound ({error.strerror}). Give another address or port."
        ) from error
    return listener


def _announce(options: Options, port: int) -> None:
    scheme = "http" if options.tls_cert is None else "https"
    host = f"[{options.host}]" if ":" in options.host else options.host
    logger.info(f"listening on {scheme}://{host}:{port}, model {options.name}, {options.workers} workers")
    if not options.is_local and options.tls_cert is None:
        logger.warning("other machines send images and tokens unencrypted. Give --tls-cert and --tls-key.")
    if options.hosts is None:
        logger.warning("every name in the header Host is accepted. Give --allow-host NAME to restrict it.")
    if options.token_file is None and not options.is_local:
        logger.warning("no token is required of clients (--no-token).")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=program("serving.http"),
        description="Serve a bundle over HTTP and gRPC (Open Inference Protocol).",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    default = Options(Path())
    add("bundle", nargs="?", type=Path, metavar="BUNDLE", help=f"bundle folder that {program('export')} wrote")
    add("--name", default=default.name, help=f"name of the model (default: {default.name})")

    group = parser.add_argument_group("network")
    add = group.add_argument
    add("--host", default=default.host, help="address to listen on (default: 127.0.0.1, only this machine)")
    add("--port", type=int, default=default.port, metavar="N", help="port of HTTP; 0: a free one (default: 8000)")
    add("--grpc-port", type=int, metavar="N", help="port of gRPC (default: no gRPC)")
    add("--token-file", type=Path, metavar="FILE", help="clients must send the token in FILE as Authorization: Bearer")
    add("--no-token", action="store_true", help="no token although other machines can connect")
    add("--tls-cert", type=Path, metavar="FILE", help="certificate chain (PEM); with --tls-key")
    add("--tls-key", type=Path, metavar="FILE", help="its key (PEM)")
    names = "accepted name in the header Host; may be repeated (default: that of --host)"
    add("--allow-host", dest="allow_hosts", action="append", default=[], metavar="NAME", help=names)
    add("--no-access-log", dest="access_log", action="store_false", help="do not log each request")

    group = parser.add_argument_group("processes and bundle")
    add = group.add_argument
    add("--workers", type=int, default=1, metavar="N", help="processes, each with its own copy (default: 1)")
    add("--watch", dest="watch_s", type=float, metavar="SECONDS", help="look so often for a changed bundle")
    add("--drain-s", type=float, default=default.drain_s, metavar="S", help="most time to answer after SIGTERM (30)")
    add("--backend", choices=list(BACKENDS), metavar="NAME", help=f"one of {', '.join(BACKENDS)}, without fallback")
    add("--precision", metavar="NAME", help="precision, without fallback, such as fp32")
    add("--device", choices=DEVICES, default="cpu", help="device of the model (default: cpu)")
    add("--threads", type=int, metavar="N", help="CPU threads of the engine (default: all)")
    mode = "one batch with all threads, or several at once (default: latency)"
    add("--optimize-for", choices=("latency", "throughput"), default="latency", help=mode)
    add("--abstain-below", type=float, metavar="P", help="threshold of abstention (default: the bundle's)")
    add("--audit", type=Path, metavar="LOG", help="audit log: one line for each prediction, without patient data")
    add("--audit-key", type=Path, metavar="FILE", help="its key (default: LOG.key)")
    add("--trust-code", action="store_true", help="also load artifacts that contain code (.ts, .pt2, .engine)")
    add("--trusted-key", type=Path, metavar="FILE", help="require a bundle signed with this key (PEM)")
    add("--trusted-digest", metavar="SHA256", help="require a bundle whose manifest has this SHA-256")

    group = parser.add_argument_group("limits")
    add = group.add_argument
    for option, text in (
        ("max-body-mb", "MiB of a request, and of what its zip files unpack to"),
        ("max-images", "images of a request"),
        ("max-pixels", "pixels of an image"),
        ("queue-images", "images in the queue"),
        ("queue-mb", "MiB of all requests that are received or answered"),
        ("max-batch", "images of a batch"),
        ("max-connections", "open connections, and calls of gRPC"),
    ):
        most = getattr(default, option.replace("-", "_"))
        add(f"--{option}", type=int, default=most, metavar="N", help=f"{text} (default: {most})")
    for option, text in (
        ("max-wait-ms", "milliseconds that a request may wait for others to join its batch"),
        ("timeout-s", "seconds for the answer after a request was received"),
        ("header-timeout-s", "seconds for the headers of a request"),
        ("body-timeout-s", "seconds for the body of a request"),
    ):
        most = getattr(default, option.replace("-", "_"))
        add(f"--{option}", type=float, default=most, metavar="S", help=f"{text} (default: {most:g})")
    return parser


if __name__ == "__main__":
    sys.exit(exit_status(main, extra="serve"))
