"""The tree of errors: names, codes, fields, and the docs page that lists them."""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections import Counter, defaultdict
from pathlib import Path

import pytest

import cascadezoo
from cascadezoo import errors
from cascadezoo.errors import CascadezooError, ModelError, Problem, SpecError
from cascadezoo.plugins.faults import CODES

ROOT = Path(__file__).parents[1]
PACKAGE = Path(cascadezoo.__file__).parent
# Functions that make an error of a class.
_MAKERS = {"fault": "PluginError", "stage_fault": "PluginError"}

KEBAB = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def tree() -> list[type[CascadezooError]]:
    classes, queue = [], [CascadezooError]
    while queue:
        cls = queue.pop()
        if cls.__module__ == errors.__name__:
            classes.append(cls)
            queue += cls.__subclasses__()
    return classes


def raised() -> dict[str, set[str]]:
    """The codes in the sources, by the name of their class."""
    codes: dict[str, set[str]] = defaultdict(set)
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            cls = getattr(node.func, "id", getattr(node.func, "attr", ""))
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    codes[_MAKERS.get(cls, cls)].add(str(keyword.value.value))
    codes["PluginError"] |= set(CODES.values())
    return codes


def documented() -> dict[str, list[str]]:
    """The codes in the table of docs/errors.md, by class."""
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| `([a-z-]+)` \| \d+ \| (.*) \|$", text, re.MULTILINE)
    return {cls: [code, *re.findall(r"`([^`]+)`", more)] for cls, code, more in rows}


def test_every_name_ends_in_error() -> None:
    names = [cls.__name__ for cls in tree()]
    assert len(names) > 20
    assert sorted([*names, "Problem"]) == sorted(errors.__all__)
    assert all(name.endswith("Error") for name in names)


def test_every_class_has_its_own_code() -> None:
    codes = Counter(cls.__dict__.get("code") for cls in tree())
    assert None not in codes
    assert set(codes.values()) == {1}
    assert all(KEBAB.fullmatch(str(code)) for code in codes)


def test_a_narrower_code_starts_with_the_code_of_its_class() -> None:
    codes = raised()
    seen: Counter[str] = Counter()
    for cls in tree():
        for code in codes[cls.__name__]:
            assert KEBAB.fullmatch(code), code
            assert code.startswith(f"{cls.code}-"), (cls, code)
            seen[code] += 1
    assert len(seen) > 300
    assert set(seen.values()) == {1}
    assert not set(seen) & {cls.code for cls in tree()}


def test_the_page_lists_every_code_once() -> None:
    codes, page = raised(), documented()
    assert set(page) == {cls.__name__ for cls in tree()}
    for cls in tree():
        assert page[cls.__name__] == [cls.code, *sorted(codes[cls.__name__])], cls


def test_the_docstring_shows_the_tree() -> None:
    rows = re.findall(r"^([│├└─ ]*)(\w+Error) ", errors.__doc__ or "", re.MULTILINE)
    depth = {name: len(head) // 4 for head, name in rows}
    assert depth == {cls.__name__: len(cls.__mro__) - 4 - _mixins(cls) for cls in tree()}


def _mixins(cls: type) -> int:
    return sum(c in cls.__mro__ for c in (KeyError, LookupError))


def test_old_names_still_work() -> None:
    for old, new in errors._RENAMED.items():
        with pytest.warns(DeprecationWarning, match=new):
            assert getattr(errors, old) is getattr(errors, new)
    with pytest.raises(AttributeError):
        errors.nonsense  # noqa: B018


def test_the_public_old_name_still_works() -> None:
    vars(cascadezoo).pop("ConfigError", None)
    with pytest.warns(cascadezoo.CascadezooDeprecationWarning, match="ConfigError"):
        assert cascadezoo.ConfigProblem is cascadezoo.ConfigError


def test_json_has_the_code_and_the_fields() -> None:
    error = ModelError(
        "m: a is missing",
        hint="copy it",
        code="model-file-missing",
        path=Path("m/a"),
        names=("a", 1),
        share=float("nan"),
    )
    assert json.loads(json.dumps(error.to_dict(), allow_nan=False)) == {
        "code": "model-file-missing",
        "message": "m: a is missing",
        "hint": "copy it",
        "fields": {"path": str(Path("m/a")), "names": ["a", 1], "share": "nan"},
    }
    assert ModelError("m").to_dict() == {"code": "model", "message": "m", "hint": None}
    assert ModelError.code == "model"


def test_errors_survive_pickling() -> None:
    for error in (
        ModelError("m", hint="h", code="model-x", path=Path("a")),
        SpecError([Problem("a.b", "is bad", "mend it", code="bad")], source="s.json"),
        errors.HubUnavailableError("busy", retry_after=3.0, code="hub-unavailable-busy"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
