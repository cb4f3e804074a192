"""Uploads: /predict and /studies, zip files within limits, and nothing on disk."""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.runtime import bombs
from tests.serving.http_service.running import form, plain


def zipped(files, **options) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def named(images):
    return {f"slice {at}.png": image for at, image in enumerate(images)}


def test_each_file_gets_what_the_predictor_says(service, images, expected):
    files = named(images)
    reply = service.predict(files)
    assert reply.status == 200
    assert [entry["file"] for entry in reply.json] == list(files)
    assert [plain(entry) for entry in reply.json] == expected


def test_a_study_from_slices_and_from_a_zip_file(service, predictor, images, expected):
    want = predictor.predict_study(images).to_dict()
    archive = zipped({**named(images), "__MACOSX/._slice": b"x", "notes.txt": b"text", "folder/": b""})
    for files, skipped in ((named(images), {}), ({"all.zip": archive}, None)):
        reply = service.predict(files, "/studies")
        assert reply.status == 200, reply.body
        found = reply.json
        assert [plain(entry) for entry in found["slices"]] == expected
        assert found["files"] == list(named(images))
        for name in ("status", "label", "used", "rejected", "method"):
            assert found[name] == want[name]
        assert found["probabilities"] == pytest.approx(want["probabilities"], abs=1e-5)
        if skipped is None:
            assert found["skipped"] == {"hidden or left behind by a system": 1, "text": 1}
        else:
            assert found["skipped"] == skipped


def encrypted() -> bytes:
    content = bytearray(zipped({"a.png": b"x" * 50}))
    for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + at] |= 1
    return bytes(content)


def packed(compression: int) -> bytes:
    """A zip file of few bytes with an image of 2 MB. `zipfile` unpacks such a member whole, however little is read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("a.png", bombs.png(40, 40, zeros=5000) + bytes(2 << 20))
    return buffer.getvalue()


def damaged() -> bytes:
    content = bytearray(zipped({"a.png": bombs.png(40, 40, zeros=5000) * 3}))
    content[60:70] = b"\xff" * 10
    return bytes(content)


ZIPS = {
    "bomb": (lambda: zipped({"a.png": bytes(3 << 20)}), 413, "unpacks to more bytes than allowed"),
    "several bombs": (lambda: zipped({f"{at}.png": bytes(1 << 20) for at in range(3)}), 413, "unpacks to more"),
    "bomb in a bomb": (lambda: zipped({"a.zip": zipped({"a.png": b""})}), 400, "has no image"),
    "too many images": (lambda: zipped({f"{at}.png": b"" for at in range(41)}), 400, "more images than the 40"),
    "too many entries": (lambda: zipped({f"{at}.txt": b"" for at in range(10_001)}), 400, "10001 entries"),
    "bzip2": (lambda: packed(zipfile.ZIP_BZIP2), 400, "another compression than deflate"),
    "lzma": (lambda: packed(zipfile.ZIP_LZMA), 400, "another compression than deflate"),
    "encrypted": (encrypted, 400, "is encrypted"),
    "damaged": (damaged, 400, "the zip file"),
    "cut": (lambda: zipped({"a.png": b"x" * 99})[:-30], 400, "cannot be read"),
    "empty": (lambda: zipped({}), 400, "has no image"),
    "only text": (lambda: zipped({"a.txt": b"words"}), 400, "has no image (1 text)"),
}


@pytest.mark.parametrize("case", ZIPS)
def test_zip_files_within_limits(service, case):
    make, status, says = ZIPS[case]
    reply = service.predict({"all.zip": make()}, "/studies")
    assert (reply.status, says in reply.error) == (status, True), reply.body


def test_a_zip_file_that_declares_less_than_it_has_is_damaged(service):
    content = bytearray(zipped({"a.png": bytes(1000)}))
    for mark, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        start = content.index(mark) + at
        content[start : start + 4] = (10).to_bytes(4, "little")
    reply = service.predict({"all.zip": bytes(content)}, "/studies")
    assert (reply.status, "the zip file cannot be read" in reply.error) == (400, True), reply.body
    assert zlib.crc32(bytes(10)) != zlib.crc32(bytes(1000))


@pytest.mark.parametrize("path", ["/predict", "/studies"])
@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        (b"", "text/plain", "is no multipart form"),
        (b"", "multipart/form-data", "the form"),
        (b"", "multipart/form-data; boundary=x", "the form has no file"),
        (b"--x\r\nwhat", "multipart/form-data; boundary=x", "the form"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--", "multipart/form-data; boundary=x", "the form"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--x--\r\n',
            "multipart/form-data; boundary=x",
            "no other fields",
        ),
    ],
)
def test_malformed_forms_are_400(service, path, body, kind, says):
    reply = service.send("POST", path, body, {"Content-Type": kind})
    assert (reply.status, says in reply.error) == (400, True), reply.body


def test_too_many_files_are_400(service):
    reply = service.predict({f"{at}.png": b"x" for at in range(41)})
    assert (reply.status, "Expected 1 to 40 files" in reply.error) == (400, True)


def test_an_upload_is_not_written_to_disk(service, images):
    """More than the megabyte above which a form's files usually go to disk, while the service holds them."""
    folder = Path(f"/proc/{service.process.pid}/fd")

    def open_files() -> set[str]:
        found = set()
        for one in folder.iterdir():
            with contextlib.suppress(FileNotFoundError):
                found.add(str(one.readlink()))
        return {one for one in found if one.startswith("/")}

    before = open_files()
    body, kind = form({"doe^john.png": images[0] + bytes(1_500_000)})
    connection = service.connect()
    connection.putrequest("POST", "/predict")
    connection.putheader("Content-Type", kind)
    connection.putheader("Transfer-Encoding", "chunked")  # without a length, only what has arrived is held
    connection.endheaders()
    connection.send(b"%x\r\n" % len(body) + body[:-10])
    service.until(lambda: service.metric("stageproof_held_bytes") >= len(body) - 10, "the body arrives")
    assert open_files() <= before
    connection.send(body[-10:] + b"\r\n0\r\n\r\n")
    assert connection.getresponse().status == 200
    connection.close()
    assert "doe^john" not in service.log
