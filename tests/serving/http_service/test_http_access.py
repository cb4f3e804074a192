"""Who may send what: token, hosts, origins, sizes and times; and what the access log says."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from stageproof.runtime import InputError
from stageproof.serving.http.inference.metrics import Metrics
from stageproof.serving.http.options import Options, check_tls, read_token
from stageproof.serving.http.transport.access import Access
from tests.records import logged
from tests.serving.http_service.running import INFER, form, in_base64

TOKEN = b"a-token-of-some-length"


async def _inner(scope, receive, send):
    if scope["path"] == "/fails":
        raise RuntimeError("doe^john")
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"inner"})


def ask(path="/v2", *, token=TOKEN, hosts=("localhost",), **headers):
    """(status, headers, body) of a request to `Access` around an application that answers everything."""
    sent = []

    async def send(message):
        sent.append(message)

    given = [
        (name.replace("_", "-").encode(), value.encode()) for name, value in {"host": "localhost", **headers}.items()
    ]
    scope = {"type": "http", "method": "GET", "path": path, "headers": given, "client": ("127.0.0.1", 1)}
    app = Access(_inner, Metrics(), token=token, hosts=hosts, open_paths=("/",))
    asyncio.run(app(scope, None, send))
    return sent[0]["status"], dict(sent[0]["headers"]), sent[1]["body"]


@pytest.mark.parametrize(
    ("header", "status"),
    [
        ("Bearer a-token-of-some-length", 200),
        ("bearer  a-token-of-some-length", 200),
        ("Bearer a-token-of-some-lengtH", 401),
        ("Bearer a-token-of-some-length2", 401),
        ("Bearer a-token-of-some-lengt", 401),
        ("Bearer", 401),
        ("Basic a-token-of-some-length", 401),
        ("a-token-of-some-length", 401),
        ("", 401),
    ],
)
def test_the_token_is_required(header, status):
    found, headers, body = ask(authorization=header)
    assert found == status
    if status == 401:
        assert headers[b"www-authenticate"] == b"Bearer"
        assert b"bearer token is missing or wrong" in body


def test_probes_and_the_page_need_no_token():
    for path, status in (("/v2/health/live", 200), ("/v2/health/ready", 200), ("/", 200), ("/metrics", 401)):
        assert ask(path)[0] == status
    assert ask("/v2/health/live/../../metrics")[0] == 401


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        ("localhost", None, 200),
        ("LOCALHOST:8000", None, 200),
        ("evil.example", None, 403),
        ("localhost.evil.example", None, 403),
        ("", None, 403),
        ("localhost", "http://localhost:8000", 200),
        ("localhost", "https://evil.example", 403),
        ("localhost", "null", 403),
    ],
)
def test_other_hosts_and_pages_of_other_sites_are_refused(host, origin, status):
    more = {} if origin is None else {"origin": origin}
    assert ask(token=None, host=host, **more)[0] == status


def test_pages_of_other_sites_are_refused_where_all_hosts_are_accepted():
    for origin, status in (("https://pacs.example", 200), ("https://evil.example", 403)):
        assert ask(token=None, hosts=None, host="pacs.example", origin=origin)[0] == status


def test_an_address_of_ipv6_is_a_host():
    assert ask(token=None, host="[::1]:8000", hosts=("::1",))[0] == 200


def test_a_failure_is_a_500_that_names_nobody():
    with logged() as lines:
        status, _, body = ask("/fails", token=None)
    assert status == 500
    assert b"RuntimeError" in body
    assert not [line for line in [*lines, body.decode()] if "doe" in line]


@pytest.mark.parametrize(("given", "taken"), [("run-7.a_B", True), ("a b", False), ("x" * 65, False), ("é", False)])
def test_request_ids(given, taken):
    found = ask(x_request_id=given, token=None)[1][b"x-request-id"].decode()
    assert (found == given) == taken
    assert taken or len(found) == 32


def test_the_access_log_has_no_names_paths_or_queries(service):
    body, kind = form({"doe^john.png": b"x"})
    service.send("POST", "/predict?patient=doe", body, {"Content-Type": kind, "X-Request-ID": "id-of-this-one"})
    service.get("/v2/models/doe-john")
    service.get("/doe/john?a=b")
    service.until(lambda: "GET other 404" in service.log, "the log")
    assert "POST /predict 200" in service.log
    assert "request id-of-this-one" in service.log
    assert "GET /v2/models/{model} 404" in service.log
    assert "doe" not in service.log


def raw(service, *pieces: bytes) -> bytes:
    """What the service answers to these bytes until it closes the connection."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as one:
        for piece in pieces:
            one.sendall(piece)
        found = b""
        while more := one.recv(65536):
            found += more
        return found


def test_slow_headers_and_bodies_end(service):
    """Each ends by itself: `raw` returns only when the service closes the connection."""
    assert raw(service) == b""
    assert raw(service, b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX-A: ") == b""
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nConnection: close\r\n\r\n".encode()
    assert raw(service, head, b"{").startswith(b"HTTP/1.1 408 ")


def test_a_header_that_arrives_byte_by_byte_ends(service):
    """Each byte would start a time limit between bytes anew."""
    with socket.create_connection(("127.0.0.1", service.port), timeout=0.2) as one:
        one.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\nX-A: ")
        for _ in range(300):
            try:
                one.sendall(b"a")
                if one.recv(100) == b"":
                    return
            except TimeoutError:
                continue
            except ConnectionError:
                return
    raise AssertionError("the connection is still open")


@pytest.mark.parametrize("how", ["declared", "chunked", "JSON"])
def test_large_bodies_are_413(service, how):
    most = 2 << 20
    head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    if how == "declared":
        assert b"HTTP/1.1 413 " in raw(service, f"{head}Content-Length: {most + 1}\r\n\r\n".encode())
    elif how == "chunked":
        chunk = b"%x\r\n" % (most + 1) + bytes(most + 1) + b"\r\n"
        found = raw(service, f"{head}Transfer-Encoding: chunked\r\n\r\n".encode(), chunk)
        assert b"HTTP/1.1 413 " in found
    else:
        assert service.infer(in_base64(b"x"), bytes(most)).status == 413


def test_compressed_bodies_and_wrong_lengths_are_refused(service):
    assert service.send("POST", INFER, b"x", {"Content-Encoding": "gzip"}).status == 415
    assert b"HTTP/1.1 400 " in raw(
        service, f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n".encode()
    )
    assert b"HTTP/1.1 400 " in raw(service, b"GET /v2 HTTP/1.1\r\n" + b"A: " + b"b" * (64 << 10) + b"\r\n\r\n")
    assert service.get("/v2", Host="evil.example").status == 403


GOOD = Options(Path("bundle"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"workers": 0}, "--workers is 0, expected at least 1"),
        ({"port": 65536}, "--port is 65536, expected 0 to 65535"),
        ({"grpc_port": 8000}, "--grpc-port is 8000, as --port"),
        ({"timeout_s": 0}, "--timeout-s is 0"),
        ({"timeout_s": float("nan")}, "--timeout-s is nan"),
        ({"watch_s": -1.0}, "--watch is -1.0"),
        ({"max_wait_ms": -1}, "--max-wait-ms is -1"),
        ({"queue_mb": 100}, "less than twice --max-body-mb"),
        ({"name": "a/b"}, "--name is 'a/b'"),
        ({"tls_cert": Path("x")}, "give both --tls-cert and --tls-key"),
        ({"host": "0.0.0.0"}, "no token is required of them"),
        ({"host": "192.0.2.1"}, "no token is required of them"),
        ({"host": "example.org"}, "no token is required of them"),
        ({"token_file": Path("x"), "no_token": True}, "give either --token-file or --no-token"),
    ],
)
def test_options_that_cannot_be(changes, says):
    GOOD.check()
    with pytest.raises(InputError) as error:
        replace(GOOD, **changes).check()
    assert says in str(error.value)


def test_hosts_by_default():
    assert GOOD.hosts == {"localhost", "127.0.0.1", "::1"}
    for host in ("127.0.0.2", "::1", "localhost"):
        replace(GOOD, host=host).check()
    assert replace(GOOD, host="0.0.0.0").hosts is None
    assert replace(GOOD, host="0.0.0.0", allow_hosts=("PACS.example",)).hosts == {"0.0.0.0", "pacs.example"}


def test_the_token_file(tmp_path):
    file = tmp_path / "token"
    with pytest.raises(InputError, match="cannot be read"):
        read_token(file)
    file.write_bytes(TOKEN + b"\n")
    file.chmod(0o640)
    with pytest.raises(InputError, match="can be read by other users"):
        read_token(file)
    file.chmod(0o600)
    assert read_token(file) == TOKEN
    for wrong in (b"short", b"two words and more of them", b"\x80" * 20):
        file.write_bytes(wrong)
        with pytest.raises(InputError, match="expected one line of at least 16 printable ASCII"):
            read_token(file)


def test_files_that_are_no_certificate(tmp_path):
    file = tmp_path / "x"
    file.write_text("x")
    with pytest.raises(InputError, match="cannot be used"):
        check_tls(file, file)


@pytest.fixture
def certificate(tmp_path):
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    made += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=localhost"]
    made += ["-addext", "subjectAltName=DNS:localhost"]
    try:
        subprocess.run(made, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    return cert, key


def test_tls_and_a_token_over_http_and_grpc(certificate, tmp_path):
    import grpc

    from stageproof.serving.http.protocol.messages import SERVICE, message
    from tests.serving.http_service.conftest import free_port
    from tests.serving.http_service.running import running

    cert, key = certificate
    token = tmp_path / "token"
    token.write_bytes(TOKEN)
    token.chmod(0o600)
    port = free_port()
    options = ("--tls-cert", str(cert), "--tls-key", str(key), "--token-file", str(token), "--grpc-port", str(port))
    with running(tmp_path, *options, until_ready=False) as one:
        context = ssl.create_default_context(cafile=cert)

        def status(path, *headers):
            plain = socket.create_connection(("127.0.0.1", one.port), timeout=60)
            with plain, context.wrap_socket(plain, server_hostname="localhost") as secure:
                lines = [f"GET {path} HTTP/1.1", "Host: localhost", "Connection: close", *headers, "", ""]
                secure.sendall("\r\n".join(lines).encode())
                return int(secure.recv(100).split()[1])

        one.until(lambda: status("/v2/health/ready") == 200, "the self-test")
        assert status("/v2") == 401
        assert status("/v2", f"Authorization: Bearer {TOKEN.decode()}") == 200
        with socket.create_connection(("127.0.0.1", one.port), timeout=60) as plain:
            plain.sendall(b"GET /v2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"HTTP" not in plain.recv(100)
        credentials = grpc.ssl_channel_credentials(cert.read_bytes())
        with grpc.secure_channel(f"localhost:{port}", credentials) as channel:
            call = channel.unary_unary(
                f"/{SERVICE}/ServerMetadata",
                request_serializer=message("ServerMetadataRequest").SerializeToString,
                response_deserializer=message("ServerMetadataResponse").FromString,
            )
            request = message("ServerMetadataRequest")()
            with pytest.raises(grpc.RpcError) as error:
                call(request, timeout=60)
            assert error.value.code() is grpc.StatusCode.UNAUTHENTICATED
            given = [("authorization", f"Bearer {TOKEN.decode()}")]
            assert call(request, timeout=60, metadata=given).name == "stageproof"
