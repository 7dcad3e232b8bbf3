"""A stranger's text made safe for terminals, single lines, Markdown, HTML and logs.

Specs, models and the Hub's answers come from strangers. Their text must not move the cursor,
reorder or hide what is read, end a block of Markdown, or hold a secret.
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

# All that is not printable: C0 and C1 controls, DEL, invisible and bidirectional format
# characters, line separators, halves of surrogate pairs. A class for the quick look; what it finds
# is then judged by its category.
SUSPECT = re.compile("[^\x20-\x7e\xa0-\xac\xae-\u02ff]")
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})

_LONGEST_MARKDOWN = 4000
_LONGEST_PAGE = 20_000
_SPECIAL = frozenset("\\`*_[]<>#|!~$&")
_LINE_STARTS = frozenset("-+=:")

_MASK = "***"
# Patterns as text: most commands never compile them.
_SECRETS = (
    # Tokens of the Hub, headers that carry one, user and password of an address, and the query
    # of an address, which with storage providers is a signature that opens it to everyone.
    (r"\b(hf_|api_org_)[A-Za-z0-9]{16,}", rf"\1{_MASK}"),
    (r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}", rf"\1 {_MASK}"),
    (r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@'\"]+@", rf"\1{_MASK}@"),
    (r"(\bhttps?://[^\s?'\"<>]+)\?[^\s'\"<>)]+", rf"\1?{_MASK}"),
)


# --- terminals


def is_invisible(char: str) -> bool:
    """Whether a character is a control, format or separator character, or half of a pair."""
    import unicodedata  # a shared library, which plain text never needs

    return unicodedata.category(char) in _INVISIBLE


def escape_character(char: str) -> str:
    r"""A character written out, as ``\x1b``."""
    return char.encode("unicode_escape").decode("ascii")


def clean(text: object, *, keep: str = "") -> str:
    r"""Text with every control character written out, as ``\x1b``.

    Specs, model folders and file names come from strangers; what they hold must not move the
    cursor, change colours or reorder what is read.

    Args:
        text: anything; ``str`` is taken of it.
        keep: control characters to leave as they are, e.g. ``"\n"``.

    >>> clean("a\x1b[31mb\u202ec\n")
    'a\\x1b[31mb\\u202ec\\n'
    """

    def escape(match: re.Match[str]) -> str:
        char = match[0]
        return char if char in keep or not is_invisible(char) else escape_character(char)

    return SUSPECT.sub(escape, str(text))


# --- one line


def clean_remote(text: object, limit: int = 300) -> str:
    r"""A line of text from a stranger that no terminal, log or page can be steered with.

    Control, bidirectional and other invisible characters are dropped, white space becomes single
    spaces, and what is longer than the limit is cut.

    Args:
        text: anything; ``str`` is taken of it.
        limit: characters at most, at least 1.

    >>> clean_remote("a\x1b[31mred\u202e\n\n  line", 12)
    'a[31mred li…'
    """
    # What is dropped cannot be more than what is kept; the rest of a huge text is not looked at.
    head = " ".join(str(text)[: 16 * limit].split())
    kept = "".join(c for c in head if c.isprintable())
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else f"{kept[: limit - 1]}…"


# --- Markdown; each function but the last two gives one line


def front_line(text: object) -> str:
    """Text for the front matter: one line, and never none."""
    return _without_comments(clean_remote(text, 300)) or "unnamed"


def markdown_text(text: object) -> str:
    r"""Text that is nothing but text, in a paragraph as in a cell.

    >>> markdown_text("a *b* <script>\n| c")
    'a \\*b\\* \\<script\\> \\| c'
    """
    one = clean_remote(text, _LONGEST_MARKDOWN)
    escaped = "".join(f"\\{c}" if c in _SPECIAL else c for c in one)
    return f"\\{escaped}" if one[:1] in _LINE_STARTS else escaped


def markdown_code(text: object) -> str:
    r"""A code span, in a paragraph as in a cell.

    >>> markdown_code("a`b|c <!-- x -->")
    '``a`b\\|c <! -- x -- >``'
    """
    one = _without_comments(clean_remote(text, _LONGEST_MARKDOWN)).replace("|", "\\|")
    longest = max((len(run) for run in re.findall("`+", one)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if one.startswith("`") or one.endswith("`") or not one.strip() else ""
    return f"{fence}{pad}{one}{pad}{fence}"


def markdown_fence(language: str, lines: Iterable[str]) -> str:
    """A block of code; no line can end it.

    Args:
        language: as ``bash``.
        lines: each stays one line, whatever is in it.
    """
    rows = ["".join(c for c in line[:_LONGEST_MARKDOWN] if c.isprintable()) for line in lines]
    rows = [_without_comments(row) for row in rows]
    longest = max((len(run) for row in rows for run in re.findall("`+", row)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *rows, fence])


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()
) -> str:
    """A table of cells that were escaped before.

    Args:
        head: the columns' names.
        rows: one cell a column.
        right: the numbers of the columns that are aligned to the right.
    """
    aligned = frozenset(right)
    dashes = ["---:" if column in aligned else "---" for column in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, dashes, *rows))


def _without_comments(text: str) -> str:
    """The ends of a comment would be taken for those of a generated block."""
    return text.replace("<!--", "<! --").replace("-->", "-- >")


# --- HTML


def page_text(text: object) -> str:
    r"""Text with every control, bidirectional or otherwise invisible character written out.

    Line ends and tabs become spaces; of more than 20,000 characters the rest is left out.

    >>> page_text("a\u202eb\n c")
    'a\\u202eb c'
    """
    whole = str(text)
    shown = whole[:_LONGEST_PAGE] + ("..." if len(whole) > _LONGEST_PAGE else "")
    shown = re.sub(r"[\t\n\r ]+", " ", shown)
    return clean(shown)


# --- logs and messages


def scrub(text: str, *secrets: str | None) -> str:
    """Text without tokens, passwords in addresses, and signatures of addresses.

    Args:
        text: what is to be shown or logged.
        secrets: further texts that must not be in it, such as the token in use.

    >>> scrub("GET https://me:pw@host/a?sig=1 with Bearer hf_abcdefghijklmnopqrst")
    'GET https://***@host/a?*** with Bearer hf_***'
    """
    for secret in secrets:
        if secret and len(secret) >= 8:
            text = text.replace(secret, _MASK)
    for pattern, mask in _SECRETS:
        text = re.sub(pattern, mask, text)
    return text
