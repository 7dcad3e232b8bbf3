"""Specs in YAML: the values of JSON in another notation.

Plain values follow the JSON schema of YAML 1.2: ``null``, ``true``, ``false`` and numbers as in
JSON; everything else is text. So ``no`` is text and ``1e-4`` a number, unlike in YAML 1.1. Anchors,
aliases and tags are refused: JSON has none, and aliases can make a small file huge.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from cascadezoo.errors import Problem, SpecError

__all__ = ["parse_yaml"]

_DEEPEST = 60
_STR, _MAP, _SEQ = (f"tag:yaml.org,2002:{name}" for name in ("str", "map", "seq"))


def _refused(problem: str, at: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=at.start_mark)


class _Loader(yaml.SafeLoader):
    """A loader of JSON values."""

    yaml_implicit_resolvers = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise _refused("anchors and aliases are not supported", event)
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "tags are not supported", event.start_mark
            )
        self.depth += 1
        if self.depth > _DEEPEST:
            raise _refused("nested too deeply", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise _refused("a key is not text", key)
            if key.value in seen:
                raise _refused(f"duplicate key {key.value!r}", key)
            seen.add(key.value)
        pairs = ((key.value, self.construct_object(value, deep=True)) for key, value in node.value)
        return dict(pairs)


def _number(loader: _Loader, node: Any) -> int | float:
    return float(node.value) if re.search(r"[.eE]", node.value) else int(node.value)


_NULL, _BOOL, _NUMBER = "json:null", "json:bool", "json:number"
_Loader.add_implicit_resolver(_NULL, re.compile(r"^(?:null|)$"), ["n", ""])
_Loader.add_implicit_resolver(_BOOL, re.compile(r"^(?:true|false)$"), ["t", "f"])
_Loader.add_implicit_resolver(
    _NUMBER,
    re.compile(r"^-?(?:0|[1-9][0-9]{0,400})(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,4})?$"),
    list("-0123456789"),
)
_Loader.add_constructor(_NULL, lambda loader, node: None)
_Loader.add_constructor(_BOOL, lambda loader, node: node.value == "true")
_Loader.add_constructor(_NUMBER, _number)
_Loader.add_constructor(_MAP, _Loader.construct_mapping)


def parse_yaml(text: bytes, source: str, *, max_bytes: int) -> Any:
    """The value of a YAML document.

    Args:
        text: the content of a file, UTF-8.
        source: its name in error messages.
        max_bytes: maximum size of the text.

    Raises:
        SpecError: it is not YAML or uses more than the values of JSON; with line and column.
    """
    if len(text) > max_bytes:
        raise SpecError(
            [Problem("", f"is larger than {max_bytes} bytes", code="too-large")], source=source
        )
    try:
        return yaml.load(text.decode("utf-8-sig"), _Loader)  # noqa: S506 - a safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
        message = f"is not a YAML spec: {error.problem or error.context}{place}"
        raise SpecError([Problem("", message, code="not-yaml")], source=source) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        first = str(error).splitlines()[0]
        raise SpecError(
            [Problem("", f"is not a YAML spec: {first}", code="not-yaml")], source=source
        ) from None
    except RecursionError:
        raise SpecError(
            [Problem("", "is nested too deeply", code="nested")], source=source
        ) from None
