"""Text from the Hub or its client, made fit to be shown: no controls, no secrets."""

from __future__ import annotations

import re

__all__ = ["clean_remote", "scrub"]

_MASK = "***"
_SECRETS = (
    # Tokens of the Hub, headers that carry one, user and password of an address, and the query
    # of an address, which with storage providers is a signature that opens it to everyone.
    (re.compile(r"\b(hf_|api_org_)[A-Za-z0-9]{16,}"), rf"\1{_MASK}"),
    (re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {_MASK}"),
    (re.compile(r"(\b[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@'\"]+@"), rf"\1{_MASK}@"),
    (re.compile(r"(\bhttps?://[^\s?'\"<>]+)\?[^\s'\"<>)]+"), rf"\1?{_MASK}"),
)


def clean_remote(text: object, limit: int = 300) -> str:
    r"""A line of text from a stranger that no terminal, log or page can be steered with.

    Control, bidirectional and other invisible characters are dropped, white space becomes single
    spaces, and what is longer than the limit is cut.

    Args:
        text: anything; ``str`` is taken of it.
        limit: characters at most, at least 1.

    >>> clean_remote("a\x1b[31mred\u202e\n\n  line", 12)
    'a[31mred lin…'
    """
    # What is dropped cannot be more than what is kept; the rest of a huge text is not looked at.
    head = " ".join(str(text)[: 16 * limit].split())
    kept = "".join(c for c in head if c.isprintable())
    kept = " ".join(kept.split())
    return kept if len(kept) <= limit else f"{kept[: limit - 1]}…"


def scrub(text: str, *secrets: str | None) -> str:
    """Text without tokens, passwords in addresses, and signatures of addresses.

    Args:
        text: what is to be shown or logged.
        secrets: further texts that must not be in it, such as the token in use.

    >>> scrub("GET https://me:pw@host/a?sig=1 with Bearer hf_abcdefghijklmnopqrst")
    'GET https://***@host/a?*** with Bearer ***'
    """
    for secret in secrets:
        if secret and len(secret) >= 8:
            text = text.replace(secret, _MASK)
    for pattern, mask in _SECRETS:
        text = pattern.sub(mask, text)
    return text
