"""Reading specs from files, standard input and the shipped specs, and ``--set``."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cascadezoo.errors import InputError, Problem, SpecError, UnknownNameError
from cascadezoo.plugins.manager import get_registry
from cascadezoo.util.limits import LARGEST_JSON, SHIPPED

__all__ = ["apply_settings", "complete", "parse_json", "read_spec", "shipped_specs"]

MAX_DEPTH = 40
YAML_SUFFIXES = (".yaml", ".yml")


def shipped_specs() -> list[str]:
    """The names of the specs that ship with cascadezoo and with plugins, sorted."""
    return get_registry().specs.names()


def read_spec(source: str | Path) -> tuple[dict[str, Any], str]:
    """The JSON data of a spec.

    Args:
        source: a file, ``-`` for standard input, or the name of a shipped spec. A file in the
            current folder of the same name as a shipped spec must be written as ``./name``.

    Returns:
        The data, and the name of the source in error messages.

    Raises:
        SpecError: the text is not a JSON object.
        UnknownNameError: the source is neither a file nor a shipped spec.
        PluginError: two plugins ship a spec of this name, or its file cannot be read.
    """
    name = str(source)
    if name == "-":
        name = "standard input"
        return parse_json(sys.stdin.buffer.read(LARGEST_JSON + 1), name), name
    if SHIPPED.fullmatch(name):
        table = get_registry().specs
        if name in {*table.rows, *table.contested, *table.refused}:
            return complete(parse_json(table.get(name).entry.load(), name), name), name
    path = Path(source)
    try:
        if path.is_dir() and (path / "spec.json").is_file():
            path = path / "spec.json"
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
    except FileNotFoundError:
        listed = ", ".join(shipped_specs())
        raise UnknownNameError(
            f"spec {name!r} not found: it is neither a file nor a shipped spec",
            hint=f"give a .json or .yaml file, or one of {listed}",
            code="lookup-spec",
            name=name,
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the spec {name!r}: {error}", code="input-spec-unreadable", name=name
        ) from error
    if path.suffix.lower() in YAML_SUFFIXES:
        return _from_yaml(text, name), name
    return parse_json(text, name), name


def _from_yaml(text: bytes, source: str) -> dict[str, Any]:
    # PyYAML takes longer to import than a spec in JSON to read.
    from cascadezoo.spec.yaml_text import parse_yaml

    data = parse_yaml(text, source, max_bytes=LARGEST_JSON)
    if not isinstance(data, dict):
        raise SpecError(
            [Problem("", "is not a mapping of keys to values", code="not-an-object")], source=source
        )
    if _depth(data) > MAX_DEPTH:
        raise SpecError([Problem("", "is nested too deeply", code="nested")], source=source)
    return data


def complete(data: dict[str, Any], source: str) -> dict[str, Any]:
    """The data of a shipped spec, which may state its differences from another shipped spec.

    Such a file has the name of the other spec in ``base``, and ``settings``: values by path, as for
    ``--set``. Its other keys replace those of the base.

    Args:
        data: the content of the file.
        source: its name in error messages.

    Returns:
        The complete data; ``data`` itself if it has no ``base``.

    Raises:
        SpecError: ``base`` is not the name of a complete shipped spec, or ``settings`` is not an
            object.
        InputError: a path does not exist in the base.
    """
    if "base" not in data:
        return data
    base, settings = data["base"], data.get("settings", {})
    table = get_registry().specs
    if not isinstance(base, str) or base not in table.rows:
        raise SpecError(
            [Problem("base", f"{base!r} is not a shipped spec", code="base-unknown")], source=source
        )
    if not isinstance(settings, dict):
        raise SpecError(
            [Problem("settings", "is not an object of values by path", code="base-settings")],
            source=source,
        )
    whole = parse_json(table.get(base).entry.load(), base)
    if "base" in whole:
        message = f"{base!r} has a base itself; name a complete spec"
        raise SpecError([Problem("base", message, code="base-of-base")], source=source)
    changed = apply_settings(whole, [f"{p}={json.dumps(v)}" for p, v in settings.items()])
    return {**changed, **{k: v for k, v in data.items() if k not in ("base", "settings")}}


def parse_json(
    text: bytes | str, source: str, *, max_bytes: int = LARGEST_JSON, finite: bool = True
) -> dict[str, Any]:
    """Parse a JSON object strictly: UTF-8, unique keys, bounded size and depth.

    Args:
        text: the content of a file.
        source: its name in error messages.
        max_bytes: maximum size of the text.
        finite: reject NaN and Infinity, which are not JSON.

    Raises:
        SpecError: with line and column if known.
    """
    if len(text) > max_bytes:
        raise SpecError(
            [Problem("", f"is larger than {max_bytes} bytes", code="too-large")], source=source
        )
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        constant = _no_constant if finite else None
        data = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=constant)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        hint = _json_hint(error.doc, error.pos)
        raise SpecError(
            [Problem("", f"is not valid JSON: {error.msg} at {place}", hint, code="not-json")],
            source=source,
        ) from None
    except UnicodeDecodeError as error:
        raise SpecError(
            [Problem("", f"is not UTF-8 text (byte {error.start})", code="not-utf8")], source=source
        ) from None
    except RecursionError:
        raise SpecError(
            [Problem("", "is nested too deeply", code="nested")], source=source
        ) from None
    except ValueError as error:
        raise SpecError([Problem("", str(error), code="not-plain-json")], source=source) from None
    if not isinstance(data, dict):
        raise SpecError([Problem("", "is not a JSON object", code="not-an-object")], source=source)
    if _depth(data) > MAX_DEPTH:
        raise SpecError([Problem("", "is nested too deeply", code="nested")], source=source)
    return data


def _json_hint(text: str, place: int) -> str | None:
    """The likely mistake at a place where a text stops being JSON; None if it is not known."""
    before, rest = text[:place].rstrip(), text[place:].lstrip()
    if before.endswith(",") and rest[:1] in ("}", "]"):
        line = before.count("\n") + 1
        return f"remove the comma after the last item, in line {line}"
    if rest.startswith(",") and rest[1:].lstrip()[:1] in ("}", "]"):
        return f"remove the comma after the last item, in line {text[:place].count(chr(10)) + 1}"
    if rest.startswith(("//", "/*", "#")):
        return "JSON has no comments: remove it"
    if rest.startswith("'"):
        return 'JSON quotes text by "double quotes"'
    if rest.startswith(("None", "True", "False")):
        return "JSON writes null, true and false"
    if not text.lstrip().startswith(("{", "[")):
        return "write it as JSON, { ... }; a spec in YAML is a file whose name ends in .yaml"
    if before.endswith(("}", "]", '"')) and rest.startswith(('"', "{", "[")):
        return "a comma is missing before it"
    return None


def apply_settings(data: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of the data with ``path=value`` settings applied.

    Dots separate the parts of a path; items of a list have their index or their ``name``
    (``stages.up.config.hidden=64``). A value that is not JSON is a string.

    Raises:
        InputError: a setting without ``=``, or with a path that does not exist.
    """
    result: dict[str, Any] = json.loads(json.dumps(data))
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise InputError(
                f"--set {setting!r} does not have the form path=value",
                code="input-setting-form",
                setting=setting,
            )
        try:
            value = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            value = text
        _put(result, path.split("."), value, setting)
    return result


def _put(node: Any, parts: list[str], value: Any, setting: str) -> None:
    *parents, last = parts
    for part in parents:
        if isinstance(node, dict):
            if node.get(part) is None:
                node[part] = {}
            node = node[part]
        else:
            node = node[_index(node, part, setting)]
    if isinstance(node, dict):
        node[last] = value
    else:
        node[_index(node, last, setting)] = value


def _index(node: Any, part: str, setting: str) -> int:
    if not isinstance(node, list):
        raise InputError(
            f"--set {setting!r}: {part!r} is inside a value without parts",
            code="input-setting-no-parts",
            setting=setting,
        )
    names = [item.get("name") if isinstance(item, dict) else None for item in node]
    if part in names:
        return names.index(part)
    if re.fullmatch(r"[0-9]{1,9}", part) and int(part) < len(node):
        return int(part)
    known = [repr(n) for n in names if n is not None]
    hint = f"use 0 to {len(node) - 1}" + (f", or {', '.join(known)}" if known else "")
    raise InputError(
        f"--set {setting!r}: no item {part!r}",
        hint=hint if node else None,
        code="input-setting-no-item",
        setting=setting,
    )


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        repeated = next(k for k, _ in pairs if k in seen or seen.add(k))  # type: ignore[func-returns-value]
        raise ValueError(f"duplicate key {repeated!r} in an object")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _depth(node: Any) -> int:
    level, depth = [node], 0
    while level:
        depth += 1
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
    return depth
