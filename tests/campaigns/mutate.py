"""Hostile values, and where a JSON document can take them."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

__all__ = ["NESTED", "change", "hostile", "leaves", "to_json", "words"]

NESTED = "\0nested"
"""Stands for a value that only text can express; :func:`to_json` writes it out."""
_BAD_TEXT = (
    *("", " ", "\0", "a\0b", "x" * 5000, "../../x", "/abs/path", "~nobody", "~nobody/x", "~", "."),
    *("/dev/zero", "/dev/stdin", "/proc/self/environ", "C:\\x", "\x1b[31m", "\u202e", "\ud800"),
    *(
        "%s%n{0}",
        "${HOME}",
        "nan",
        "-0",
        "a/b/c@d",
        "hf://a/b",
        "file:///etc/passwd",
        "\n\n",
        "\u0131",
    ),
)
_BAD_NUMBERS = (
    *(0, -1, 1, 2, 3, 7, 255, 8192, 65536, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64),
    *(10**30, 10**400, -(2**63), 0.0, -0.0, 0.5, 1e-300, 1e308, -1e308, 1.0000001),
    *(float("nan"), float("inf"), -float("inf")),
)


def hostile(random: random.Random, old: Any = None) -> Any:
    """A value to put in the place of ``old``: often of its type, often of another."""
    if isinstance(old, bool) and random.random() < 0.3:
        return not old
    if isinstance(old, (int, float)) and not isinstance(old, bool) and random.random() < 0.6:
        if random.random() < 0.4:
            factor = random.choice([2, 3, 10, 100, 1000, 10**6, 10**9, -1, 0.5])
            try:
                return old * factor
            except OverflowError:
                return factor
        return random.choice(_BAD_NUMBERS)
    if isinstance(old, str) and random.random() < 0.6:
        return random.choice([*_BAD_TEXT, old * 100, old.upper(), old + "x", old[:-1]])
    if isinstance(old, list) and random.random() < 0.6:
        return random.choice([[], old * 2, old[:1], [*old, None], old * 300, [old]])
    return random.choice(
        [
            None,
            True,
            random.choice(_BAD_NUMBERS),
            random.choice(_BAD_TEXT),
            [],
            {},
            [[]],
            {"": {}},
            [None] * 1000,
            {"x" * 5000: 1},
            {f"k{n}": n for n in range(2000)},
            NESTED,
        ]
    )


def leaves(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths of all values of a document, inner ones too, but its root."""
    rows = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in rows:
        yield (*path, key)
        if isinstance(value, (dict, list)):
            yield from leaves(value, (*path, key))


def change(random: random.Random, data: Any, *, under: tuple[Any, ...] = ()) -> str:
    """Spoil one place of a document; returns what was done."""
    root = get(data, under)
    paths = list(leaves(root, under))
    path = random.choice(paths)
    holder, key = get(data, path[:-1]), path[-1]
    how = random.random()
    shown = ".".join(map(str, path))
    if how < 0.1:
        del holder[key]
        return f"{shown} removed"
    if how < 0.2 and isinstance(holder, dict):
        holder["surprise" if random.random() < 0.5 else f"{key}x"] = hostile(random, holder[key])
        return f"a key beside {shown}"
    if how < 0.3:
        other = get(data, random.choice(paths))
        holder[key] = copy.deepcopy(other)
        return f"{shown} = another value of the document"
    if how < 0.35 and isinstance(holder, list):
        holder.extend(copy.deepcopy(holder[:1]) * random.choice([1, 2, 20, 200]))
        return f"{shown} repeated"
    holder[key] = hostile(random, holder[key])
    return f"{shown} = {repr(holder[key])[:60]}"


def get(data: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for key in path:
        data = data[key]
    return data


def to_json(random: random.Random, data: Any) -> str:
    """The document as text, with what JSON can say but Python cannot: depth, double keys."""
    text = json.dumps(data)
    marker = json.dumps(NESTED)
    while marker in text:
        depth = random.choice([10, 100, 990, 5000, 100_000])
        pair = random.choice([("[", "]"), ('{"a":', "}")])
        inner = "1" if pair[0] != "[" else ""
        text = text.replace(marker, pair[0] * depth + inner + pair[1] * depth, 1)
    return text


def words(random: random.Random, text: str) -> str:
    """Spoil a text itself: double keys, cuts, other bytes, broken numbers."""
    how = random.randrange(6)
    at = random.randrange(len(text) + 1)
    if how == 0:
        return text[:at]
    if how == 1:
        return (
            text[:at]
            + random.choice(["\0", "\ufeff", "{", "}", ",", '"', "\\u0000", "1e999"])
            + text[at:]
        )
    if how == 2:
        key = random.choice(["name", "stages", "data", "seed"])
        return text.rstrip()[:-1] + f', "{key}": 1' + "}"
    if how == 3:
        return text.replace(
            "1", random.choice(["1" * 5000, "1e400", "-", "0x1", "NaN", "-Infinity"]), 1
        )
    if how == 4:
        return text + random.choice([" " * (1 << 20), "x", "{}", "\0"])
    return text.replace(":", random.choice([": :", "=", ""]), 1)
