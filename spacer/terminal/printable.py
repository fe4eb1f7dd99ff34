"""Makes untrusted text safe to display: escapes control characters and the markup of Markdown and HTML (pure).

Data, completions, model folders and file names can contain anything. A terminal obeys escape sequences, and
bidirectional control characters can make text look like other text.
"""

from __future__ import annotations

import re

# C0 except tab and newline, DEL and C1; bidirectional marks, embeddings and isolates; other line separators; and
# surrogates, which stand for undecodable bytes of file names and cannot be encoded
_CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
# inline markup of Markdown on the hub and GitHub; `_` within a word is none
_MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<!\w)_|_(?!\w)")


def printable(text: str) -> str:
    r"""The text with control characters escaped as in Python; tabs and newlines are kept.

    >>> print(printable("\x1b[2Jred\r\n\u202egnp.exe"))
    \x1b[2Jred
    \u202egnp.exe
    """
    return _CONTROLS.sub(_escaped, text.replace("\r\n", "\n"))


def one_line(text: str) -> str:
    r"""As `printable`, on one line.

    >>> one_line("a\n\tb")
    'a b'
    """
    return " ".join(printable(text).split())


def markdown(text: str) -> str:
    r"""The text escaped for Markdown, on one line: for a paragraph, a heading or a table cell.

    >>> print(markdown("a|b <img src=x> [link](http://x) task/object_count"))
    a\|b &lt;img src=x&gt; \[link\](http://x) task/object_count
    """
    escaped = _MARKUP.sub(lambda found: "\\" + found[0], one_line(text))
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def code(text: str) -> str:
    """The text as inline code in Markdown.

    >>> code("a`b"), code("")
    ('`` a`b ``', '` `')
    """
    text = one_line(text)
    fence = "`" * (_longest(text) + 1)
    return f"{fence} {text} {fence}" if "`" in text else f"`{text or ' '}`"


def code_block(text: str, language: str = "") -> str:
    """The text as a code block in Markdown, with a fence longer than any in the text.

    >>> print(code_block("a: b", "yaml"))
    ```yaml
    a: b
    ```
    """
    fence = "`" * max(3, _longest(text) + 1)
    return f"{fence}{language}\n{printable(text).rstrip()}\n{fence}"


def _longest(text: str) -> int:
    """The length of the longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def _escaped(found: re.Match[str]) -> str:
    point = ord(found[0])
    return f"\\x{point:02x}" if point < 0x100 else f"\\u{point:04x}"
