"""Makes untrusted text safe for terminals, single lines, Markdown, HTML and logs.

Specs, models and the Hub's answers are untrusted. Their text must not move the cursor, reorder or
hide other text, end a block of Markdown, or contain a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = [
    "clean",
    "clean_remote",
    "escape_character",
    "front_line",
    "is_invisible",
    "markdown_code",
    "markdown_fence",
    "markdown_table",
    "markdown_text",
    "page_text",
    "scrub",
]

# Candidates for unprintable characters: C0 and C1 controls, DEL, invisible and bidirectional format
# characters, line separators, surrogates. The pattern is fast and matches too much; the category of
# each match decides.
SUSPECT = re.compile("[^\x20-\x7e\xa0-\xac\xae-\u02ff]")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

_LONGEST_MARKDOWN = 4000
_LONGEST_PAGE = 20_000
_SPECIAL = frozenset("\\`*_[]<>#|!~$&")
_LINE_STARTS = frozenset("-+=:")

_MASK = "***"
# Patterns as text: most commands never compile them.
_SECRETS = (
    # The bounds keep the time of a search linear in the text's length.
    # Tokens of the Hub, headers with a token, user and password of a URL, and the query of a URL:
    # storage providers put signatures there that grant access to everyone.
    (r"\b(hf_|api_org_)[A-Za-z0-9]{16,}", rf"\1{_MASK}"),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", rf"\1 {_MASK}"),
    (r"(\b[a-zA-Z][a-zA-Z0-9+.-]{0,30}://)[^/\s@'\"]+@", rf"\1{_MASK}@"),
    (r"(\bhttps?://[^\s?'\"<>]{1,4000})\?[^\s'\"<>)]+", rf"\1?{_MASK}"),
)


# --- terminals


def is_invisible(char: str) -> bool:
    """Whether a character is a control, format or separator character or a surrogate."""
    import unicodedata  # a shared library that plain text never needs

    return unicodedata.category(char) in _INVISIBLE


def escape_character(char: str) -> str:
    r"""The escape sequence of a character, as ``\x1b``."""
    return char.encode("unicode_escape").decode("ascii")


def clean(text: object, *, keep: str = "") -> str:
    r"""Text with every control character escaped, as ``\x1b``.

    Text from specs, model folders and file names must not move the cursor, change colours or
    reorder other text.

    Args:
        text: any object; it is converted with ``str``.
        keep: control characters to keep, e.g. ``"\n"``.

    >>> clean("a\x1b[31mb\u202ec\n")
    'a\\x1b[31mb\\u202ec\\n'
    """

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        return char if char in keep or not is_invisible(char) else escape_character(char)

    return SUSPECT.sub(escape, str(text))


# --- one line


def clean_remote(text: object, limit: int = 300) -> str:
    r"""Untrusted text as one line that is safe in a terminal, log or page.

    Control, bidirectional and other invisible characters are removed, white space becomes single
    spaces, and longer text is cut.

    Args:
        text: any object; it is converted with ``str``.
        limit: maximum number of characters, at least 1.

    >>> clean_remote("a\x1b[31mred\u202e\n\n  line", 12)
    'a[31mred li…'
    """
    # The rest of a huge text is skipped.
    head = " ".join(str(text)[: 16 * limit].split())
    kept = "".join(c for c in head if c.isprintable())
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else f"{kept[: limit - 1]}…"


# --- Markdown; all functions but the last two return one line


def front_line(text: object) -> str:
    """Text for the front matter: one line, never empty."""
    return _without_comments(clean_remote(text, 300)) or "unnamed"


def markdown_text(text: object) -> str:
    r"""Escaped text for a paragraph or a table cell.

    >>> markdown_text("a *b* <script>\n| c")
    'a \\*b\\* \\<script\\> \\| c'
    """
    one = clean_remote(text, _LONGEST_MARKDOWN)
    escaped = "".join(f"\\{c}" if c in _SPECIAL else c for c in one)
    return f"\\{escaped}" if one[:1] in _LINE_STARTS else escaped


def markdown_code(text: object) -> str:
    r"""A code span for a paragraph or a table cell.

    >>> markdown_code("a`b|c <!-- x -->")
    '``a`b\\|c <! -- x -- >``'
    """
    one = _without_comments(clean_remote(text, _LONGEST_MARKDOWN)).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", one)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if one.startswith("`") or one.endswith("`") or not one.strip() else ""
    return f"{fence}{pad}{one}{pad}{fence}"


def markdown_fence(language: str, lines: Iterable[str]) -> str:
    """A code block that none of its lines can end.

    Args:
        language: the language, e.g. ``bash``.
        lines: the lines; line breaks in them are removed.
    """
    rows = ["".join(c for c in line[:_LONGEST_MARKDOWN] if c.isprintable()) for line in lines]
    rows = [_without_comments(row) for row in rows]
    longest = max((len(run) for row in rows for run in re.findall("`+", row)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *rows, fence])


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()
) -> str:
    """A table of escaped cells.

    Args:
        head: the names of the columns.
        rows: one cell per column.
        right: the indices of the right-aligned columns.
    """
    aligned = frozenset(right)
    dashes = ["---:" if column in aligned else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, dashes, *rows))


def _without_comments(text: str) -> str:
    """Text without comment marks, which would start or end a generated block of a card."""
    return text.replace("<!--", "<! --").replace("-->", "-- >")


# --- HTML


def page_text(text: object) -> str:
    r"""Text with every control, bidirectional or other invisible character escaped.

    Line breaks and tabs become spaces. Text beyond 20,000 characters is omitted.

    >>> page_text("a\u202eb\n c")
    'a\\u202eb c'
    """
    full = str(text)
    shown = full[:_LONGEST_PAGE] + ("..." if len(full) > _LONGEST_PAGE else "")
    return clean(re.sub(r"[\t\n\r ]+", " ", shown))


# --- logs and messages


def scrub(text: str, *secrets: str | None) -> str:
    """Text with tokens, passwords in URLs and signatures of URLs masked.

    Args:
        text: the text to show or log.
        secrets: further texts to mask, such as the token in use.

    >>> scrub("GET https://me:pw@host/a?sig=1 with Bearer hf_abcdefghijklmnopqrst")
    'GET https://***@host/a?*** with Bearer hf_***'
    """
    for secret in secrets:
        if secret and len(secret) >= 8:
            text = text.replace(secret, _MASK)
    for pattern, mask in _SECRETS:
        text = re.sub(pattern, mask, text)
    return text
