"""The form of a page, as a browser without scripts has it."""

from __future__ import annotations

import re
from html import unescape


class Form:
    """The fields of a page and what they hold."""

    def __init__(self, html: str) -> None:
        self.html = html
        self.values: dict[str, str] = {}
        for name, text in re.findall(r'<textarea[^>]* name="(\w+)"[^>]*>\n(.*?)</textarea>', html, re.DOTALL):
            self.values[name] = unescape(text)
        for tag in re.findall(r"<input [^>]*>", html):
            attributes = dict(re.findall(r'(\w+)="([^"]*)"', tag))
            if "name" in attributes and (attributes.get("type") != "checkbox" or " checked" in tag):
                self.values[attributes["name"]] = unescape(attributes.get("value", ""))
        for name, options in re.findall(r'<select id="\S+" name="([^"]+)"(.*?)</select>', html, re.DOTALL):
            chosen = re.search(r'value="([^"]*)" selected', options)
            assert chosen is not None, name
            self.values[name] = unescape(chosen[1])

    def beside(self, name: str) -> str:
        """Return what is said to be wrong with a field."""
        found = re.search(rf'<p class="error" id="field-{name}-problem">(.*?)</p>', self.html)
        assert found is not None, name
        return unescape(found[1])
