"""The metric card: its claims, its escaping of untrusted text, and its manual edits."""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from card_cases import INFO, SPEC, card, figure, metrics, rows
from huggingface_hub import ModelCard, ModelCardData
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cascadezoo.cards import card_file
from cascadezoo.cards.card_file import (
    address_card,
    address_of,
    data_info,
    inspect_card,
    merge_cards,
    new_card,
    renew_card,
)
from cascadezoo.cards.check_card import card_faults, claim_faults, read_front
from cascadezoo.cards.render_card import BLOCKS, block_digest, render_card
from cascadezoo.model_folder.layout import read_config
from cascadezoo.model_folder.reproduction import command_of, metric_argument, metric_texts
from cascadezoo.model_folder.trained_spec import published_spec
from cascadezoo.spec import CascadeSpec
from cascadezoo.spec.configs import DataInfo
from cascadezoo.util.numbers import number, power, times
from cascadezoo.util.text import markdown_code as code
from cascadezoo.util.text import markdown_fence as fenced
from cascadezoo.util.text import markdown_text as plain
from cascadezoo.zoo.list import bundled_folder, find

MARKDOWN = MarkdownIt("commonmark").enable("table")
BLOCK = re.compile(
    r"<!-- cascadezoo:begin ([a-z-]+) ([0-9a-f]{16}) -->\n(.*?)\n<!-- cascadezoo:end \1 -->", re.S
)


# --- metadata


def test_results_of_one_metric_on_one_dataset_stay_apart() -> None:
    """The Hub merges two results that differ only in their value."""
    stated = [
        figure(),
        figure(extractor="inception"),
        figure(n=2000),
        figure(seed=1, name_more="seed1"),
        figure(split="test"),
        figure(subset_size=100, subsets=10),
        figure(resolution=64),
        figure(precision="bf16"),
    ]
    for place, row in enumerate(stated):
        row.pop("name_more", None)
        row["name"] = "kid"  # only the arguments differ
        row["value"] = float(place)
    text = render_card(SPEC, metrics(*stated), INFO)
    data = ModelCard(text).data
    again = ModelCardData(**yaml.safe_load(data.to_yaml()), ignore_metadata_errors=False)
    results = again.eval_results
    assert sorted(result.metric_value for result in results) == list(range(len(stated)))
    for one in results:
        assert [other for other in results if one.is_equal_except_value(other)] == [one]
    args = next(r.metric_args for r in results if r.metric_value == 5.0)
    expected = {"extractor": "small", "n": 1000, "resolution": 32, "seed": 0, "split": "train"}
    assert expected.items() <= args.items()
    assert (args["subset_size"], args["subsets"]) == (100, 10)


def test_metadata() -> None:
    text = card(
        figure(),
        figure(
            metric="images-per-second",
            seed=None,
            split=None,
            extractor=None,
            precision=None,
            std=None,
            unit="images/s",
        ),
    )
    data = ModelCard(text).data
    assert (data.license, data.library_name) == ("apache-2.0", "cascadezoo")
    assert data.pipeline_tag == "unconditional-image-generation"
    assert data.datasets == ["org/shapes"]
    assert {"cascadezoo", "image-generation", "demo"} <= set(data.tags)
    (result,) = data.eval_results  # a speed belongs to a machine, not to a dataset
    assert (result.dataset_type, result.dataset_split) == ("org/shapes", "train")
    assert card_faults(text) == []


def test_information_of_the_dataset_at_training_time_has_precedence() -> None:
    stated = {"source": "shapes", "title": "Forms", "license": "CC0", "hub_id": None}
    text = card(figure(), data=stated)
    assert "Trained on Forms. Licence of the data: CC0." in text
    assert ModelCard(text).data.datasets == ["org/shapes"]
    assert data_info(SPEC).title == "Shapes"
    gone = SPEC.model_copy(update={"data": SPEC.data.model_copy(update={"source": "gone"})})
    assert data_info(gone) == DataInfo()
    assert "whose licence" not in render_card(gone, metrics(figure()), data_info(gone))


# --- the body


def test_sections_of_a_card() -> None:
    generated = {"stage": "up", "role": "upsampler", "mismatch": 0.004}
    generated |= {"real": figure(value=0.01), "generated": figure(value=0.014)}
    text = card(
        figure(),
        attribution=[generated],
        course=[
            {"phase": "joint", "epoch": e, "step": e, "figure": figure(n=500)} for e in range(40)
        ],
        problems=[{"metric": "fid", "why": "no data"}],
    )
    assert [match[0] for match in BLOCK.findall(text)] == list(BLOCKS)
    assert all(block_digest(body) == digest for _, digest, body in BLOCK.findall(text))
    for stated in (
        "4.56 G",
        "One image takes 4.57 G floating-point operations.",
        "1.50 GiB for the process, data included",
        "| coarse | coarse | 2400 steps |  | 10.73 |",
        "0.9 to 0.1",
        "cpu, 1 thread",
        "cascadezoo evaluate path/to/shapes-tiny --check",
        "- `fid`: no data",
        "intended use",
    ):
        assert stated in text, stated
    assert rows(text, "stage | role") == [
        ["up", "upsampler", "10.00 +- 2.00 x 10^-3", "14.00 +- 2.00 x 10^-3", "4.000 x 10^-3"]
    ]
    assert 0 < text.count("| joint | ") <= 13
    assert claim_faults(text, metrics(figure(), attribution=[generated], course=[
        {"phase": "joint", "epoch": 0, "step": 0, "figure": figure(n=500)}])) == []  # fmt: skip


def test_usage_is_three_lines_of_python_and_one_of_shell() -> None:
    python, shell = re.findall(r"```(?:python|bash)\n(.*?)```", card(), re.S)[:2]
    assert [len(text.splitlines()) for text in (python, shell)] == [3, 1]
    compile(python, "card", "exec")


@pytest.mark.parametrize(
    ("row", "command"),
    [
        (figure(), "--metrics kid --extractor small -n 1000 --seed 0"),
        (figure(precision="bf16", extractor="inception", seed=3), "--metrics kid --extractor inception -n 1000 --seed 3 --precision bf16"),
        (figure(split="test", metric="fid"), "--metrics fid --extractor small -n 1000 --seed 0 --split test"),
        (figure(subsets=100, subset_size=500), "--metrics kid --extractor small -n 1000 --seed 0"),
        (figure(subsets=10, subset_size=50), "--metrics kid --extractor small -n 1000 --seed 0 --set evaluation.subsets=10 --set evaluation.subset_size=50"),
        (figure(metric="lpips", extractor="alex", precision=None, settings={"net": "alex"}), "--metrics lpips:alex -n 1000 --seed 0"),
        (figure(metric="psnr", extractor=None, precision=None), "--metrics psnr -n 1000 --seed 0"),
    ],
)  # fmt: skip
def test_the_command_of_a_figure(row: dict[str, Any], command: str) -> None:
    assert command_of(row, SPEC, "org/x") == f"cascadezoo evaluate org/x {command}"
    assert f"cascadezoo evaluate path/to/shapes-tiny {command}" in card(row)


def test_figures_that_are_not_reproducible() -> None:
    assert command_of(figure(seed=None), SPEC, "x") is None
    old = figure(note="x; measured before the sampling defaults were tuned")
    assert command_of(old, SPEC, "x") is None
    assert "the model's sampling settings have changed" in card(old)
    assert metric_argument(figure(metric="gone")) == "gone"


def test_a_metric_whose_plugin_is_missing() -> None:
    assert metric_texts("loudness").scale == 1.0
    assert metric_texts("kid").scale == 1000.0
    text = card(figure(metric="loudness", value=3.25, std=None))
    assert rows(text)[0][1:3] == ["loudness", "3.250"]


# --- only figures of metrics.json

words = st.text(max_size=30) | st.sampled_from(
    ["a|b", "`", "``", "\n---\n", "<!-- cascadezoo:end figures -->", "<script>x</script>", "](javascript:x)",
     "\x1b[31m", "\u202e", "# h", "```", "- a: b", "'; rm -rf /'", "| a | b |\n| --- | --- |", "!!python/object:x"]
)  # fmt: skip
values = st.floats(-1e12, 1e12) | st.floats(-1e-9, 1e-9) | st.floats(-10, 10)
figure_rows = st.fixed_dictionaries(
    {
        "name": words,
        "metric": st.sampled_from(["kid", "fid", "psnr"]) | words,
        "value": values,
        "n": st.integers(0, 10**7),
    },
    optional={
        "std": st.floats(0, 1e6),
        "unit": words,
        "extractor": words | st.just("small"),
        "extractor_version": words,
        "precision": st.sampled_from(["fp32", "bf16"]),
        "seed": st.integers(0, 2**63 - 1),
        "split": st.sampled_from(["train", "test"]),
        "n_real": st.integers(0, 10**7),
        "note": words,
        "settings": st.dictionaries(words, words | values, max_size=2),
    },
)


def shown(text: str) -> list[tuple[float, float]]:
    """Every number of a value's cell with half a unit of its last digit, not scaled."""
    scale = 10.0 ** int(match[1]) if (match := re.search(r" x 10\^(-?\d+)", text)) else 1.0
    head = text.partition(" x 10^")[0]
    parts = re.match(r"(-?[\d.]+(?:e[+-]\d+)?)(?: \+- ([\d.]+(?:e[+-]\d+)?))?", head)
    assert parts is not None
    numbers = []
    for part in filter(None, parts.groups()):
        digits, _, exponent = part.partition("e")
        unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
        numbers.append((float(part) * scale, 0.51 * unit * scale))
    return numbers


def markup(body: str) -> tuple[list[str], list[str]]:
    """The beginnings of all HTML in a text, and its links, as a Markdown parser reads them."""
    tokens = [t for top in MARKDOWN.parse(body) for t in (top, *(top.children or ()))]
    html = [t.content.strip() for t in tokens if t.type in ("html_block", "html_inline")]
    parts = [re.match(r"<!-- cascadezoo:(begin|end)|.*", row, re.S) for row in html]
    return [m[0] for m in parts if m], [str(t.attrs) for t in tokens if t.type == "link_open"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(figure_rows, max_size=4), words, words)
def test_every_number_on_the_card_is_in_metrics(
    figures: list[dict[str, Any]], device: str, description: str
) -> None:
    stated = metrics(*figures)
    stated["training"]["device"] = device
    spec = SPEC.model_copy(update={"description": description, "tags": [device[:80]]})
    text = render_card(spec, stated, INFO)
    table = rows(text)
    assert len(table) == len(figures)
    for row, cells in zip(figures, table, strict=True):
        assert len(cells) == 4
        assert cells[0] == code(row["name"]).replace("\\\\|", "\\|")
        numbers = [row["value"], *([row["std"]] if "std" in row else [])]
        for (value, slack), true in zip(shown(cells[2]), numbers, strict=True):
            assert math.isclose(value, true, rel_tol=1e-9, abs_tol=slack)
    # The metadata are valid, every block is complete, and nothing ends a block early.
    assert card_faults(text) == []
    front = read_front(text)
    assert isinstance(front, dict)
    blocks = BLOCK.findall(text)
    assert [name for name, _, _ in blocks] == [name for name in BLOCKS if name != "attribution"]
    assert all(block_digest(body) == digest for _, digest, body in blocks)
    assert text.count("<!--") == text.count("-->") == 2 * len(blocks)
    html, links = markup(text.split("\n---\n", 1)[1])
    assert html == [f"<!-- cascadezoo:{part}" for _ in blocks for part in ("begin", "end")]
    assert links == []
    assert all(char.isprintable() or char == "\n" for char in text)
    # The card agrees with metrics.json, unless two figures have one name on it.
    names = [code(row["name"]) for row in figures]
    if len(set(names)) == len(names):
        assert claim_faults(text, stated) == []


@settings(deadline=None)
@given(values, st.floats(0, 1e9), st.sampled_from([1.0, 100.0, 1000.0, 3.0]))
def test_numbers_round_trip(value: float, std: float, scale: float) -> None:
    row = figure(value=value, std=std)
    text = card(row)
    assert claim_faults(text, metrics(row)) == []
    other = figure(value=value + max(1.0, abs(value)), std=std)
    assert claim_faults(text, metrics(other))
    back = times(power(scale))
    assert back is not None
    assert float(number(value * scale)) * back == pytest.approx(value, rel=1e-2, abs=1e-3)


@given(words)
def test_texts_stay_on_their_line(text: str) -> None:
    for escaped in (plain(text), code(text)):
        assert "\n" not in escaped
        assert not re.search(r"(?<!\\)\|", escaped)
    assert fenced("bash", [text, text]).count("\n") == 3
    assert fenced("bash", [text]).splitlines()[-1] not in text


# --- manual edits


def test_an_unedited_card_is_renewed_completely() -> None:
    before, after = card(figure()), card(figure(value=0.5))
    renewed = renew_card(after, before)
    assert (renewed.text, renewed.kept, renewed.added, renewed.own) == (after, (), (), False)


def test_manual_edits_are_kept_and_reported() -> None:
    mine = card(figure()).replace("# shapes-tiny\n", "# shapes-tiny\n\nMine.\n")
    mine = mine.replace("Licence of the data", "The licence")
    mine = mine.replace("- demo\n", "- demo\n- mine\n").replace(
        "license: ", "language: en\nlicense: "
    )
    ours = card(figure(value=0.5), attribution=[
        {"stage": "coarse", "role": "generator", "generated": figure(value=0.2)}])  # fmt: skip
    renewed = renew_card(ours, mine)
    assert (renewed.kept, renewed.added) == (("limits",), ("attribution",))
    for stated in ("\nMine.\n", "The licence", "- mine\n", "language: en"):
        assert stated in renewed.text
    order = [name for name, _, _ in BLOCK.findall(renewed.text)]
    assert order == list(BLOCKS)
    assert rows(renewed.text)[0][2] == "500.0 +- 2.0 x 10^-3"
    assert renew_card(ours, renewed.text).text == renewed.text
    # On the Hub, missing parts are not added.
    assert "attribution" not in [name for name, _, _ in BLOCK.findall(merge_cards(ours, mine))]


def test_a_manual_card_is_unchanged() -> None:
    renewed = renew_card(card(figure()), "# mine\n")
    assert (renewed.text, renewed.own) == ("# mine\n", True)


def test_commands_keep_the_address_of_a_published_model() -> None:
    published = address_card(card(figure()), SPEC.name, "org/shapes-tiny")
    assert address_of(published) == "org/shapes-tiny"
    assert "path/to" not in published
    again = new_card(published, SPEC, metrics(figure(value=0.5)), INFO)
    assert again.text.count("org/shapes-tiny") == published.count("org/shapes-tiny") >= 4
    assert "path/to" not in again.text
    forced = new_card(published.replace("Licence", "Licences"), SPEC, metrics(), INFO, force=True)
    assert "Licences" not in forced.text
    assert address_of(forced.text) == "org/shapes-tiny"
    assert address_of('```python\nCascade.from_pretrained("x")') == "x"
    assert address_of('Cascade.from_pretrained("a\nb")') is None


# --- cards of version 0.1: the bundled model has one


@pytest.fixture
def bundled() -> Path:
    folder = bundled_folder(find("shapes-tiny"))
    assert folder is not None
    return folder


def test_claims_of_a_card_of_an_earlier_version_are_checked(bundled: Path) -> None:
    stated = json.loads((bundled / "metrics.json").read_text())
    text = (bundled / "README.md").read_text()
    assert "| figure | what | value | how it was got |" in text
    assert "| stage | role | fed real images | fed generated images | mismatch |" in text
    assert claim_faults(text, stated) == []
    stated["figures"][0]["value"] *= 2
    stated["attribution"][1]["real"]["value"] *= 2
    assert len(claim_faults(text, stated)) == 3


def test_a_card_that_differs_only_in_its_wording_is_current(bundled: Path, tmp_path: Path) -> None:
    stated = json.loads((bundled / "metrics.json").read_text())
    spec = published_spec(bundled, read_config(bundled))
    state = inspect_card(bundled, spec, stated)
    assert (state.current, state.unchanged, state.faults) == (True, False, ())
    assert claim_faults(state.renewed.text, stated) == []
    folder = shutil.copytree(bundled, tmp_path / "model")
    (folder / "README.md").write_text(state.renewed.text)
    assert inspect_card(folder, spec, stated).unchanged
    stated["figures"][0]["note"] = "new"
    assert not inspect_card(bundled, spec, stated).current


def test_every_text_of_an_earlier_version_has_a_present_one() -> None:
    """The rows that the bundled model's card does not have."""
    course = [
        {"phase": "p", "epoch": e, "step": e, "figure": figure(n=500, seed=None)} for e in range(40)
    ]
    rows_of_stages = [{"stage": "coarse", "role": "generator", "generated": figure()}]
    now = [
        card(figure(), course=course, problems=[{"metric": "fid", "why": "no data"}]),
        card(attribution=rows_of_stages, stages=[{"name": "a", "kind": "b", "output": "c",
                                                  "parameters": 1}]),
        card(figure(seed=None), figure(note="measured before the sampling defaults were tuned")),
    ]  # fmt: skip
    path = Path(card_file.__file__).parent / "earlier_wording.json"
    for old, new in json.loads(path.read_text()):
        assert any(new in text for text in now) or new.strip() in (
            "Additional losses:",
            "One image takes unknown",
        ), new
        assert not any(old in text for text in now), old


def test_untrusted_front_matter_is_harmless() -> None:
    for index in (
        "7",
        "[7]",
        "[{results: 7}]",
        "[{results: [{metrics: [7]}]}]",
        "[{results: [{metrics: [{value: 1, type: [a]}]}]}]",
    ):
        text = f"---\nmodel-index: {index}\n---\n# x\n"
        assert all(isinstance(fault, str) for fault in claim_faults(text, metrics(figure())))


def test_commands_quote_untrusted_specs() -> None:
    data = SPEC.to_dict() | {"requires": ["cascadezoo'; rm -rf ~; '"]}
    spec = CascadeSpec.model_validate(data)
    text = render_card(spec, metrics(figure()), INFO)
    assert """pip install 'cascadezoo'"'"'; rm -rf ~; '"'"''""" in text


def test_names_of_classes_stay_although_the_data_are_not_opened(tmp_path: Path) -> None:
    named = DataInfo(title="Forms", class_names=tuple(f"kind *{n}*" for n in range(8)))
    # A model of a version that recorded no names in the spec.
    update = {"source": "npz", "config": {"path": str(tmp_path)}, "class_names": None}
    data = SPEC.data.model_copy(update=update)
    spec = SPEC.model_copy(update={"data": data})
    stated = metrics(figure(), data={"source": "npz", "title": "Forms"})
    before = render_card(spec, stated, named)
    assert data_info(spec) == DataInfo()
    assert new_card(before, spec, stated).text == before
    # An edited block is kept as it is, and another number of classes has no names.
    edited = before.replace("nothing else", "not much else")
    assert new_card(edited, spec, stated).text == edited
    fewer = spec.model_copy(update={"data": data.model_copy(update={"num_classes": 7})})
    assert "of 7 classes that resemble" in new_card(before, fewer, stated).text
