"""Text from outside on its way to a terminal."""

from __future__ import annotations

import re

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""Characters that move the cursor, turn the direction of writing or cannot be written; not tabs and line breaks."""


def plain(text: str) -> str:
    r"""The text with what could steer a terminal, or could not be written to one, as escapes.

    >>> print(plain("mine\x1b[2J"))
    mine\x1b[2J
    """
    return CONTROL.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode("ascii"), text)


def written(name: str) -> str:
    r"""A file's name as it can be written in tables and reports: bytes in it that are no UTF-8 as escapes.

    >>> print(written("Mu\udcf1oz.png"))
    Mu\udcf1oz.png
    """
    return name.encode(errors="backslashreplace").decode()
