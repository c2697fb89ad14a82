"""Texts from files, made safe for where they go. Jinja2 does it for pages, the CLI for terminals."""

import re
from typing import Any

from synthgen.files import json_bytes

_MARKUP = re.compile(r"[\\`*_{}\[\]<>()#+!|~&:@$\"]|(?<=www)\.", re.IGNORECASE)
_PAGE = {ord(character): f"\\u{ord(character):04x}" for character in "<>&"}


def in_markdown(text: str) -> str:
    """A text that Markdown shows as it is: no markup, no HTML, no link."""
    return _MARKUP.sub(r"\\\g<0>", text)


def in_code_span(text: str) -> str:
    """A text as a code span of Markdown, which it cannot end."""
    return "`" + text.replace("`", "'") + "`"


def json_ld_bytes(document: Any) -> bytes:
    """JSON-LD as UTF-8, also safe inside the ``<script>`` of a page, where search engines want it."""
    return json_bytes(document).decode().translate(_PAGE).encode()
