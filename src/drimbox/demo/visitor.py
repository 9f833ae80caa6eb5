"""A visitor without a browser: follows redirections, keeps cookies, fills in the forms it finds by their button."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

from lxml import html

from drimbox.foundation.http_client import HttpClient, Reply

_MOVED = frozenset({301, 302, 303, 307, 308})


class Lost(Exception):
    """The page does not hold what the story needs; says what was looked for, and what the page is called."""


@dataclass(frozen=True, slots=True)
class Page:
    """An answer, where it came from, and its text."""

    address: str
    status: int
    content_type: str
    body: bytes

    @property
    def tree(self) -> html.HtmlElement:
        tree: html.HtmlElement = html.fromstring(self.body.decode("utf-8"))
        return tree

    @property
    def title(self) -> str:
        return str(self.tree.findtext(".//title") or "").strip()

    @property
    def text(self) -> str:
        return " ".join(self.tree.text_content().split())


class Visitor:
    """One browser's worth of state: cookies by name, as browsers share them between the ports of a host."""

    def __init__(self, http: HttpClient, tls: ssl.SSLContext) -> None:
        self._http = http
        self._tls = tls
        self._cookies: dict[str, str] = {}

    async def get(self, address: str, *, accept: str = "text/html", timeout: float = 120.0) -> Page:
        """The page at the end of the redirections."""
        return await self._visit("GET", address, None, accept, timeout)

    async def post(self, address: str, fields: dict[str, str]) -> Page:
        """What a form's submission leads to."""
        return await self._visit("POST", address, urlencode(fields).encode("ascii"), "text/html", 120.0)

    async def press(self, page: Page, button: str, **fields: str) -> Page:
        """Submit the form whose button reads ``button``, every field as the page set it unless given."""
        for form in page.tree.forms:
            for candidate in form.xpath(".//button|.//input[@type='submit']"):
                label = " ".join((candidate.text_content() or candidate.get("value") or "").split())
                if button.lower() not in label.lower():
                    continue
                values = {name: value for name, value in form.form_values() if name}
                if candidate.get("name"):
                    values[candidate.get("name")] = candidate.get("value") or ""
                # A box that must be ticked by hand is ticked by whoever presses the button.
                for box in form.xpath(".//input[@type='checkbox'][@required]"):
                    values[box.get("name")] = box.get("value") or "on"
                values.update(fields)
                address = urljoin(page.address, candidate.get("formaction") or form.get("action") or "")
                if (form.get("method") or "get").lower() == "get":
                    return await self.get(f"{address}?{urlencode(values)}")
                return await self.post(address, values)
        raise Lost(f"pas de bouton « {button} » sur la page « {page.title} » ({page.status})")

    async def follow(self, page: Page, link: str) -> Page:
        """Open the link whose text holds ``link``."""
        for anchor in page.tree.xpath("//a[@href]"):
            if link.lower() in " ".join(anchor.text_content().split()).lower():
                return await self.get(urljoin(page.address, anchor.get("href")))
        raise Lost(f"pas de lien « {link} » sur la page « {page.title} » ({page.status})")

    async def _visit(self, method: str, address: str, body: bytes | None, accept: str, timeout: float) -> Page:
        for _ in range(20):
            headers = {"Accept": accept, "Accept-Language": "fr"}
            if self._cookies:
                headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self._cookies.items())
            if body is not None:
                parts = urlsplit(address)
                headers["Content-Type"] = "application/x-www-form-urlencoded"
                headers["Origin"] = f"{parts.scheme}://{parts.netloc}"
            reply = await self._http.send(
                method, address, tls=self._tls, headers=headers, body=body, timeout=timeout, max_bytes=2**30
            )
            self._keep_cookies(reply)
            if reply.status not in _MOVED:
                return Page(address, reply.status, reply.headers.get("Content-Type", ""), reply.body)
            address = urljoin(address, reply.headers["Location"])
            if reply.status in (301, 302, 303):
                method, body = "GET", None
        raise Lost("trop de redirections")

    def _keep_cookies(self, reply: Reply) -> None:
        for header in reply.headers.getall("Set-Cookie", []):
            for name, morsel in SimpleCookie(header).items():
                if morsel["max-age"] == "0" or not morsel.value:
                    self._cookies.pop(name, None)
                else:
                    self._cookies[name] = morsel.value
