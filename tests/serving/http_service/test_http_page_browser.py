"""The page in headless Chromium: what is chosen or dropped gets its result, and no request leaves the service."""

from __future__ import annotations

import base64
import io
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.runtime import bombs
from tests.serving.http_service.running import running

pytestmark = pytest.mark.slow
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    if CHROMIUM is None:
        pytest.skip("needs an installed Chromium")
    with api.sync_playwright() as driver:
        options = [*FLAGS, "--disable-component-update", "--disable-sync"]
        one = driver.chromium.launch(executable_path=CHROMIUM, args=options)
        yield one
        one.close()


@contextmanager
def opened(browser, service, viewport=WIDE, *, refused: bool = False, **options: Any) -> Iterator[Any]:
    """The page; at the end, every request must have gone to the service, and no script must have failed.

    refused: the service refuses requests, which the console lists.
    """
    context = browser.new_context(viewport=viewport, **options)
    page = context.new_page()
    origin, requests, errors = f"http://127.0.0.1:{service.port}/", [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(origin)
    if not refused:
        page.locator("#model dd").nth(3).wait_for()
    yield page
    assert requests
    assert [url for url in requests if not url.startswith((origin, f"blob:{origin}", "data:"))] == []
    assert [one for one in errors if not (refused and one.startswith("Failed to load resource"))] == []
    context.close()


def given(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "mimeType": "", "buffer": content}


def finished(page) -> None:
    page.locator("#state", has_text=re.compile(r"^\d+ results")).wait_for()


def dicom(image: bytes) -> bytes:
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("L"))
    return bombs.dicom("1.2.840.10008.1.2.1", pixels.tobytes(), len(pixels), len(pixels), encapsulated=False)


@pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_slices_and_a_broken_file(browser, service, images, expected, viewport, scheme, tmp_path):
    files = [given(f"doe-{at}.png", image) for at, image in enumerate(images[:9])] + [
        given("broken.png", images[0][:100]),
        given("empty.png", b""),
        given("<b>.zip", b"PK"),
    ]
    with opened(browser, service, viewport, color_scheme=scheme) as page:
        sent = []
        page.on("request", lambda request: sent.append(request.post_data_buffer or b""))
        page.set_input_files("#files", files)
        finished(page)
        cards = page.locator("#results article")
        assert [one.split("\n")[0] for one in cards.all_inner_texts()] == [one["name"] for one in files[:10]]
        for at, want in enumerate(expected[:9]):
            text = cards.nth(at).inner_text()
            assert want["status"] in text
            assert (want["label"] or "no class is given") in text
            for label, value in want["probabilities"].items():
                assert cards.nth(at).get_by_label(f"{label}: {value * 100:.1f} %", exact=True).count() == 1
        assert "rejected" in cards.nth(9).inner_text()
        assert page.locator("#unsent li strong").all_inner_texts() == ["empty.png", "<b>.zip"]
        assert page.locator("#results img").count() >= 8
        assert not any(b"doe" in body for body in sent)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        page.screenshot(path=tmp_path / "page.png", full_page=True)


def test_a_folder_and_nested_folders(browser, service, images, tmp_path):
    folder = tmp_path / "doe"
    for at in range(3):
        (folder / f"scan{at}").mkdir(parents=True)
        (folder / f"scan{at}" / "slice.png").write_bytes(images[at])
    (folder / ".hidden").write_bytes(b"x")
    with opened(browser, service) as page:
        page.set_input_files("#folder", folder)
        finished(page)
        names = page.locator("#results h3").all_inner_texts()
        assert sorted(names) == [f"doe/scan{at}/slice.png" for at in range(3)]


def test_a_dicom_series_as_a_study(browser, service, images):
    series = [given(f"IM{at}", dicom(images[at])) for at in range(4)]
    with opened(browser, service) as page:
        page.check("#study")
        page.set_input_files("#files", series)
        finished(page)
        assert page.locator("#answer article").count() == 1
        assert page.locator("#results h3").all_inner_texts() == [one["name"] for one in series]
        assert page.locator("#results .tile").count() == 4


DROP = """async ({content, nested}) => {
  const bytes = Uint8Array.from(atob(content), (c) => c.charCodeAt(0));
  const file = (name) => new File([bytes], name);
  let found = null;
  const leaf = (name) => ({isFile: true, name, file: (done) => done(file(name))});
  const folder = (name, children) => ({isFile: false, name, createReader: () => {
    const parts = [children.slice(0, 1), children.slice(1), []];
    return {readEntries: (done) => done(parts.shift())};
  }});
  const event = new Event("drop", {bubbles: true, cancelable: true});
  const entry = nested ? folder("a", [leaf("1.png"), folder("b", [leaf("2.png"), leaf("3.png")])]) : null;
  event.dataTransfer = {items: [{kind: "file", getAsFile: () => file("0.png"), webkitGetAsEntry: () => entry}]};
  document.getElementById("drop").dispatchEvent(event);
  return event.defaultPrevented;
}"""


@pytest.mark.parametrize("nested", [False, True])
def test_dropped_files_and_folders(browser, service, images, nested):
    with opened(browser, service) as page:
        data = {"content": base64.b64encode(images[0]).decode(), "nested": nested}
        assert page.evaluate(DROP, data)
        finished(page)
        names = page.locator("#results h3").all_inner_texts()
        assert names == (["a/1.png", "a/b/2.png", "a/b/3.png"] if nested else ["0.png"])


def test_every_control_is_reached_with_the_tab_key_and_has_a_name(browser, service):
    with opened(browser, service) as page:
        order = []
        for _ in range(3):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id"))
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert page.evaluate(outline) == "solid"
        assert order == ["files", "folder", "study"]
        assert page.evaluate("[...document.querySelectorAll('input')].every((one) => one.labels.length === 1)")


def test_a_study_above_the_limit_is_not_sent_in_part(browser, service, images):
    with opened(browser, service) as page:
        page.check("#study")
        page.set_input_files("#files", [given(f"{at}.png", images[at % 8]) for at in range(41)])
        finished(page)
        assert page.locator("#unsent li").count() == 41
        assert "accepts 40 images" in page.locator("#unsent li").first.inner_text()
        assert page.locator("#results article").count() == 0


def test_what_was_cancelled_is_listed(browser, service, images):
    with opened(browser, service) as page:
        page.evaluate("at('files').addEventListener('change', () => at('cancel').click())")
        page.set_input_files("#files", [given(f"{at}.png", images[at]) for at in range(3)])
        finished(page)
        assert page.locator("#results article").count() == 0
        lines = page.locator("#unsent li").all_inner_texts()
        assert [line.partition(".png: ")[0] for line in lines] == ["0", "1", "2"]
        assert all("Cancelled" in line for line in lines)


def test_a_token_and_a_service_that_stopped(browser, images, tmp_path):
    secret = tmp_path / "token"
    secret.write_text("token-of-this-test-only\n")
    secret.chmod(0o600)
    with running(tmp_path, "--token-file", str(secret)) as one, opened(browser, one, refused=True) as page:
        field = page.locator("#token")
        field.fill("another-token-than-that")
        page.keyboard.press("Enter")
        page.locator("#state", has_text="missing or wrong").wait_for()
        for name in ("forgotten.png", "a.png"):  # the last one waits for the token, then is sent
            with page.expect_response("**/page/settings"):
                page.set_input_files("#files", [given(name, images[0])])
            page.locator("#cancel").wait_for(state="hidden")
        assert "other files were chosen" in page.locator("#unsent li", has_text="forgotten.png").inner_text()
        field.fill("token-of-this-test-only")
        page.keyboard.press("Enter")
        finished(page)
        assert page.locator("#results h3").all_inner_texts() == ["a.png"]
        assert page.locator("#access").is_hidden()
        assert page.evaluate("localStorage.length + sessionStorage.length + document.cookie.length") == 0
        one.end()
        page.set_input_files("#files", [given("b.png", images[0])])
        page.locator("#unsent li", has_text="b.png: The service cannot be reached").wait_for()


def test_files_chosen_while_others_are_sent_are_listed(browser, service, images):
    with opened(browser, service) as page:
        page.evaluate("at('files').addEventListener('change', () => run(async () => [{ name: 'second.png' }]))")
        page.set_input_files("#files", [given("first.png", images[0])])
        finished(page)
        assert page.locator("#results h3").all_inner_texts() == ["first.png"]
        assert "Other files were being sent" in page.locator("#unsent li", has_text="second.png").inner_text()
