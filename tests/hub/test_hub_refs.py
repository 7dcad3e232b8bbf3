"""The meaning of references; ambiguous ones are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st

from cascadezoo.errors import CascadezooError, ModelReferenceError
from cascadezoo.hub.locate import locate
from cascadezoo.hub.refs import HubRef, ZooRef, as_argument, is_hub_id, parse_reference

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(autouse=True)
def cwd(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("org/name", HubRef("org/name")),
        ("org/name@main", HubRef("org/name", "main")),
        ("hf://org/name", HubRef("org/name")),
        ("hf://org/name@refs/pr/12", HubRef("org/name", "refs/pr/12")),
        (f"org/na.me-1_2@{COMMIT}", HubRef("org/na.me-1_2", COMMIT)),
        ("shapes-tiny", ZooRef("shapes-tiny")),
        ("zoo:shapes-tiny", ZooRef("shapes-tiny")),
        ("zoo:missing", ZooRef("missing")),
        ("./org/name", Path("org/name")),
        ("../name", Path("../name")),
        ("/srv/org/name", Path("/srv/org/name")),
        (".", Path()),
        (Path("org/name"), Path("org/name")),
    ],
)
def test_forms(text, meant):
    assert parse_reference(text) == meant


def test_home_is_expanded():
    assert parse_reference("~/models/x") == Path.home() / "models" / "x"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "empty"),
        ("a\0b", "empty"),
        ("nothing-cwd", "not-found"),
        ("a/b/c", "not-found"),
        ("https://huggingface.co/org/name", "is-address"),
        ("hf://name", "not-a-repo"),
        ("hf://org/name/more", "not-a-repo"),
        ("hf://org/../name", "not-a-repo"),
        ("hf://-org/name", "not-a-repo"),
        ("hf://org/na--me", "not-a-repo"),
        ("hf://org/name.git", "not-a-repo"),
        ("hf://org/" + "n" * 97, "not-a-repo"),
        ("hf://org/näme", "not-a-repo"),
        ("hf://org/name@", "not-a-revision"),
        ("hf://org/name@../../x", "not-a-revision"),
        ("hf://org/name@a..b", "not-a-revision"),
        ("hf://org/name@-x", "not-a-revision"),
        ("hf://org/name@a b", "not-a-revision"),
        ("hf://org/name@a\x1b[31m", "not-a-revision"),
        ("hf://org/name@" + "r" * 201, "not-a-revision"),
        ("hf://org/name@x/.git", "not-a-revision"),
        ("org/name@a//b", "not-a-revision"),
        ("zoo:../x", "not-a-zoo-name"),
        ("zoo:", "not-a-zoo-name"),
        ("~nobody-of-that-name/x", "unknown-home"),
        ("x" * 5000, "empty"),
        ("x" * 300, "not-found"),
        ("org/" + "x" * 300, "not-a-repo"),
        ("shapes-tiny@main", "not-found"),
    ],
)
def test_invalid_references(text, code):
    with pytest.raises(ModelReferenceError) as raised:
        parse_reference(text)
    assert raised.value.code == f"reference-{code}"
    assert raised.value.hint
    assert raised.value.exit_code == 2
    assert "\x1b" not in raised.value.what


def test_similar_names_are_suggested():
    with raises(ModelReferenceError, "reference-not-found", name="shapes-tyni") as raised:
        parse_reference("shapes-tyni")
    assert "'shapes-tiny'" in raised.value.hint


def test_folder_and_repo_of_one_name(cwd):
    (cwd / "org" / "name").mkdir(parents=True)
    (cwd / "org" / "name" / "config.json").write_text("{}")
    with raises(ModelReferenceError, "reference-ambiguous", name="org/name") as e:
        parse_reference("org/name")
    assert "./org/name" in e.value.hint
    assert "hf://org/name" in e.value.hint
    assert parse_reference("./org/name") == Path("org/name")
    assert parse_reference("hf://org/name") == HubRef("org/name")
    # Folders have no revisions, so only one meaning is left.
    assert parse_reference("org/name@main") == HubRef("org/name", "main")
    assert parse_reference("org/name", "main") == HubRef("org/name", "main")
    (cwd / "org" / "name@main").mkdir()
    with raises(ModelReferenceError, "reference-ambiguous", name="org/name@main"):
        parse_reference("org/name@main")


def test_folder_and_zoo_model_of_one_name(cwd):
    (cwd / "shapes-tiny").mkdir()
    with raises(ModelReferenceError, "reference-ambiguous", name="shapes-tiny") as raised:
        parse_reference("shapes-tiny")
    assert "zoo:shapes-tiny" in raised.value.hint
    assert "./shapes-tiny" in raised.value.hint
    (cwd / "other").mkdir()
    assert parse_reference("other") == Path("other")


def test_run_folders_are_never_ambiguous(cwd):
    run = cwd / "runs" / "digits"
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    assert parse_reference("runs/digits") == Path("runs/digits")
    with raises(ModelReferenceError, "reference-unfinished"):
        locate("runs/digits")
    (run / "model").mkdir()
    (run / "model" / "config.json").write_text("{}")
    assert locate("runs/digits") == Path("runs/digits/model")


@pytest.mark.parametrize("text", ["./x", "zoo:shapes-tiny", "shapes-tiny", Path("x")])
def test_only_repos_have_revisions(text):
    with raises(ModelReferenceError, "reference-no-revision"):
        parse_reference(text, "main")


def test_two_revisions():
    assert parse_reference("org/name@v1", "v1") == HubRef("org/name", "v1")
    with raises(ModelReferenceError, "reference-two-revisions"):
        parse_reference("org/name@v1", "v2")


def test_only_full_commits_are_pinned():
    assert HubRef("a/b", COMMIT).pinned
    assert not any(HubRef("a/b", r).pinned for r in (None, "main", COMMIT[:7], COMMIT.upper()))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("models/x", "./models/x"),
        ("x", "./x"),
        ("./x", "./x"),
        ("/a/x", "/a/x"),
        ("a/b/c", "a/b/c"),
        ("My Model", "My Model"),
    ],
)
def test_paths_are_written_unambiguously(path, text, cwd):
    assert as_argument(path) == text
    folder = cwd / text
    folder.mkdir(parents=True) if not folder.is_absolute() or cwd in folder.parents else None
    if folder.is_dir():
        assert parse_reference(as_argument(path)) == Path(text)


def test_bundled_models_need_no_network(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    folder = locate("shapes-tiny", offline=True)
    assert (folder / "config.json").is_file()
    assert locate("zoo:shapes-tiny") == folder


@given(
    st.text(max_size=60) | st.from_regex(r"[~./a-z:@-]{0,20}", fullmatch=True),
    st.none() | st.text(max_size=30),
)
def test_any_text_is_parsed_or_an_input_error(text, revision):
    try:
        ref = parse_reference(text, revision)
    except CascadezooError as error:
        assert error.exit_code == 2
        return
    if isinstance(ref, HubRef):
        parts = ref.repo_id.split("/")
        assert len(parts) == 2
        assert not {"", ".", ".."} & set(parts)
        assert ".." not in (ref.revision or "").split("/")


@given(st.from_regex(r"(hf://)?[\w.-]{1,8}/[\w.-]{1,8}(@[\w./-]{0,8})?", fullmatch=True))
def test_repo_ids_stay_inside_the_cache(text):
    if not is_hub_id(text):
        return
    try:
        ref = parse_reference(text)
    except ModelReferenceError:
        return
    assert isinstance(ref, HubRef)
    assert ".." not in str(ref)
    assert str(ref).isascii()


def test_a_reference_that_may_be_a_run_is_no_repo(cwd):
    assert parse_reference("models/digits") == HubRef("models/digits")
    (cwd / "models").mkdir()
    for text in ("runs/none", "models/digits"):
        with raises(ModelReferenceError, "reference-no-run", name=text, runs=[]):
            parse_reference(text)
        # What only the Hub can mean goes to the Hub.
        assert parse_reference(f"hf://{text}") == HubRef(text)
        assert parse_reference(f"{text}@v1") == HubRef(text, "v1")
        assert parse_reference(text, "v1") == HubRef(text, "v1")
