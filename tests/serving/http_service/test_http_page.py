"""The page: its files, headers and settings; and, marked slow, what it does in Chromium."""

from __future__ import annotations

import re

import pytest

from stageproof.serving.http.page.routes import STATIC
from tests.serving.http_service.running import running

FILES = sorted(path.name for path in STATIC.iterdir())


def test_the_page_and_its_files_are_served_under_a_strict_policy(service):
    for path in ("", *FILES):
        reply = service.get(f"/{path}")
        assert reply.status == 200, path
        assert reply.body == (STATIC / (path or "index.html")).read_bytes()
        policy = reply.headers["content-security-policy"].split("; ")
        assert {"default-src 'self'", "img-src 'self' blob: data:"} <= set(policy)
        assert "unsafe" not in reply.headers["content-security-policy"]


def test_the_page_refers_only_to_its_own_files():
    page = (STATIC / "index.html").read_text()
    referred = set(re.findall(r'(?:src|href)="([^"]+)"', page)) - {"data:,"}
    assert referred == set(FILES) - {"index.html"}
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\son\w+=|\sstyle=", page)  # the policy refuses inline code
    for name in FILES:
        assert not re.search(r"https?:|[\"'(]//|innerHTML|eval\(", (STATIC / name).read_text()), name
    assert sum(len((STATIC / name).read_bytes()) for name in FILES) <= 40_000


def test_scripts_find_every_element_that_they_name():
    ids = set(re.findall(r'\bid="([^"]+)"', (STATIC / "index.html").read_text()))
    script = (STATIC / "page.js").read_text()
    assert set(re.findall(r'\bat\("([^"]+)"\)', script)) <= ids


def test_the_page_always_says_that_it_is_for_research(service):
    page = service.get("/").body.decode()
    notice = re.search(r'<p class="notice">(.*?)</p>', page)[1]
    assert "Research use only" in notice
    assert "Not a medical device" in notice


def test_settings_are_those_of_the_model_and_the_limits(service, predictor):
    found = service.get("/page/settings").json
    assert found["labels"] == list(predictor.model.classes.names)
    assert (found["model_digest"], found["bundle_digest"]) == (predictor.model.digest, predictor.digest)
    assert (found["name"], found["max_body"], found["max_images"]) == ("stageproof", 2 << 20, 40)


def test_names_in_thresholds_are_those_of_guard_scores(service, images):
    (result,) = service.predict({"image-0001": images[0]}).json
    assert set(service.get("/page/settings").json["thresholds"]) == set(result["guard"])


@pytest.mark.slow
def test_the_token_protects_settings_but_not_the_files(tmp_path):
    secret = tmp_path / "token"
    secret.write_text("token-of-this-test-only\n")
    secret.chmod(0o600)
    with running(tmp_path, "--token-file", str(secret)) as one:
        assert {one.get(f"/{name}").status for name in ("", *FILES)} == {200}
        assert one.get("/page/settings").status == 401
        assert one.get("/page/settings", Authorization="Bearer token-of-this-test-only").status == 200
