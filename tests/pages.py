"""Reads a report page as a browser does, and checks that it is self-contained."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

VOID = {"meta", "img", "br"}
FETCHING = {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}
PICTURE = re.compile(r"data:image/(png|svg\+xml);base64,([A-Za-z0-9+/=]+)")


class Page(HTMLParser):
    """Tags, text, links and pictures of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.links: list[str] = []
        self.pictures: list[tuple[str, str, bytes]] = []
        """(text alternative, kind, content)"""

    def handle_starttag(self, tag: str, attrs) -> None:
        attributes = dict(attrs)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        assert not [name for name in attributes if name.startswith("on")], attributes
        assert "url(" not in attributes.get("style", "")
        if tag == "a":
            self.links.append(attributes["href"])
        elif tag == "img":
            found = PICTURE.fullmatch(attributes["src"])
            assert found, attributes["src"][:80]
            self.pictures.append((attributes["alt"], found[1], base64.b64decode(found[2])))
        else:
            assert not {"src", "href", "srcset", "action"} & set(attributes), (tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text += data


def read_page(html: str) -> Page:
    """The page. Fails if it is not well formed, fetches anything, or has a picture without a text alternative."""
    page = Page()
    page.feed(html)
    page.close()
    assert page.open == []
    assert not FETCHING & page.tags
    assert not re.search(r"https?:|@import|url\(", html)
    assert "width=device-width" in html
    assert not [link for link in page.links if link.startswith(("/", "\\")) or ":" in link or ".." in link]
    for alternative, kind, content in page.pictures:
        assert alternative.strip()
        if kind == "png":
            assert content.startswith(b"\x89PNG")
        else:
            for element in ElementTree.fromstring(content).iter():
                assert not element.tag.endswith(("script", "foreignObject"))
                links = [value for name, value in element.attrib.items() if name.endswith("href")]
                assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    page.text = " ".join(page.text.split())
    return page
