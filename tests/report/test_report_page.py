"""Parts of pages: escaping, tables, plots and pictures, and their behaviour in a real browser."""

from __future__ import annotations

import base64
import hashlib
import io
import math
import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser
from pathlib import Path

import browser
import numpy as np
import pytest
from errors_help import raises
from hypothesis import given
from hypothesis import strategies as st
from jinja2 import UndefinedError
from markupsafe import Markup
from PIL import Image

from cascadezoo.errors import InputError
from cascadezoo.report.charts import (
    Axis,
    Band,
    Bars,
    Chart,
    Point,
    Scale,
    Series,
    scale_for,
    smooth,
    thin,
)
from cascadezoo.report.charts_svg import draw_bars, draw_chart, draw_plots
from cascadezoo.report.page_pictures import inline_picture, sheet
from cascadezoo.report.page_templates import environment, render_page
from cascadezoo.report.tables import Column, PageTable, TableCell
from cascadezoo.util.numbers import page_number as number
from cascadezoo.util.numbers import page_spread as spread
from cascadezoo.util.text import page_text as plain

PARTS = "caption, charts, facts, folded, image, lacks, layers, picture, section, strip, table"


def page_of(body: str, title: str, lead: str = "", **context: object) -> str:
    """Render a page from the template of its body."""
    template = environment().from_string(
        '{% extends "page.html.j2" %}\n'
        f'{{% from "parts.html.j2" import {PARTS} with context %}}\n'
        f"{{% block body %}}{body}{{% endblock %}}"
    )
    return render_page(template, title=title, lead=lead, **context)


class Texts(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_starttag(self, tag, attrs):
        assert tag == "p"
        assert [name for name, _ in attrs] == ["title"]
        self.title = attrs[0][1]


@given(st.text(max_size=60))
def test_text_is_unchanged_and_makes_no_tags(text):
    parser = Texts()
    paragraph = environment().from_string('<p title="{{ text }}">{{ text }}</p>')
    parser.feed(paragraph.render(text=text))
    parser.close()
    assert parser.text == parser.title == plain(text)
    assert plain(plain(text)) == plain(text)
    plain(text).encode()  # no halves of surrogate pairs
    assert not set(plain(text)) & set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\x00")


def test_everything_but_markup_is_escaped():
    env = environment()
    shown = env.from_string("{{ text }}{% set b %}<b>{{ text }}</b>{% endset %}{{ b }}")
    assert shown.render(text="1 < 2") == "1 &lt; 2<b>1 &lt; 2</b>"
    assert env.from_string("{{ text }}").render(text=Markup("<i></i>")) == "<i></i>"
    assert (
        env.from_string("{{ text }}").render(text=str(Markup("<i></i>"))) == "&lt;i&gt;&lt;/i&gt;"
    )
    with pytest.raises(UndefinedError):
        env.from_string("{{ nothing }}").render()


@pytest.mark.parametrize(
    ("value", "std", "scale", "shown"),
    [
        (0.0148882, 0.0019562, 1000, "14.9 ± 2.0"),
        (5.1234, 0.00123, 1, "5.1234 ± 0.0012"),
        (512.3, 41.2, 1, "512 ± 41"),
        (1.5, 0.0, 1, "1.50 ± 0.00"),
        (math.nan, 0.1, 1, "not a number"),
        (math.inf, 0.1, 1, "infinite"),
        (1e200, 1e190, 1, "1e+200 ± 1e+190"),
        (None, None, 1, "\N{EN DASH}"),
    ],
)
def test_spread_has_significant_digits(value, std, scale, shown):
    assert spread(value, std, scale) == shown


@given(st.floats() | st.integers(), st.floats(min_value=0.0))
def test_any_number_can_be_shown(value, std):
    assert len(number(value)) < 40
    assert len(spread(float(value) if abs(value) < 1e300 else 1.0, std)) < 60


def test_the_policy_allows_only_the_content_of_the_page():
    text = page_of("", "x")
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', text)[1]
    assert policy.startswith("default-src &#39;none&#39;")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        inside = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.S)
        assert len(inside) == 1
        digest = base64.b64encode(hashlib.sha256(inside[0].encode()).digest()).decode()
        assert f"{tag}-src &#39;sha256-{digest}&#39;" in policy
    assert "style=" not in text
    assert text.index("Content-Security-Policy") < text.index("<style>")


def test_tables_refuse_rows_of_another_length():
    with raises(InputError, "input-table-row"):
        PageTable([Column("a"), Column("b")], [["x"]], label="t")


def test_pictures_are_lossless_and_use_the_smaller_encoding():
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (40, 30, 3), dtype=np.uint8))
    flat = Image.new("RGBA", (300, 200), (1, 2, 3, 0))
    for image in (noise, flat):
        picture = inline_picture(image)
        assert (picture.width, picture.height) == image.size
        data = base64.b64decode(picture.uri.partition(",")[2])
        with Image.open(io.BytesIO(data)) as decoded:
            assert np.array_equal(
                np.asarray(decoded.convert("RGBA")), np.asarray(image.convert("RGBA"))
            )
        file = io.BytesIO()
        image.save(file, format="PNG", optimize=True)
        assert len(data) <= file.tell()
    with raises(InputError, "input-picture-unreadable"):
        inline_picture(b"<svg onload=alert(1)>")


def test_sheets_enlarge_by_integer_factors_and_are_transparent_between_images():
    images = [Image.new("RGB", (5, 5), (i, 0, 0)) for i in range(7)]
    whole = np.asarray(sheet(images, 3, cell=12, gap=3))
    assert whole.shape == (3 * 13 - 3, 3 * 13 - 3, 4)
    assert set(whole[..., 3].flatten()) == {0, 255}
    for i in range(7):
        row, column = divmod(i, 3)
        cell = whole[row * 13 : row * 13 + 10, column * 13 : column * 13 + 10]
        assert (cell == [i, 0, 0, 255]).all()
    assert whole[10:13, :, 3].max() == whole[26:, 13:, 3].max() == 0
    assert sheet([Image.new("RGB", (1024, 512))], 4).size == (256, 128)


# --- plots


@given(
    st.lists(st.floats(-1e90, 1e90), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_scales_contain_every_value_and_their_ticks(values, log, zero):
    values = [abs(v) + 1e-90 for v in values] if log else values
    scale = scale_for(values, Axis("x", log=log, zero=zero))
    assert scale.low < scale.high
    assert all(-1e-6 <= scale.place(v) <= 1 + 1e-6 for v in (*values, *scale.ticks))
    assert len(scale.ticks) <= 24


def test_ticks_are_round():
    assert scale_for([0, 10], Axis("x"), tight=True).ticks == (0, 2, 4, 6, 8, 10)
    assert scale_for([1, 1000], Axis("x", log=True), tight=True).ticks == pytest.approx(
        (1, 3, 10, 30, 100, 300, 1000)
    )
    assert Scale(1.0, 100.0, log=True).place(10.0) == pytest.approx(0.5)


def test_thinned_lines_keep_their_means():
    points = [Point(float(i), float(i % 7)) for i in range(1001)]
    thinned = thin(points, 100)
    assert len(thinned) == 100
    weights = [(i + 1) * 1001 // 100 - i * 1001 // 100 for i in range(100)]
    mean = sum(p.y * w for p, w in zip(thinned, weights, strict=True)) / 1001
    assert mean == pytest.approx(sum(p.y for p in points) / 1001)
    assert thin(points[:3]) == points[:3]


def chart(**changes) -> Chart:
    series = [
        Series("a <b>", [Point(1, 10, 2, "one"), Point(100, 20, None, "two"), Point(3, math.nan)]),
        Series("b", [Point(5, 15), Point(6, 1e300), Point(50, 12)], joined=True),
    ]
    kept = {"x": Axis("parameters", log=True), "y": Axis("KID"), "series": series} | changes
    return Chart("Title & more", **kept)


def svg_of(markup: str) -> ET.Element:
    match = re.search(r"<svg .*?</svg>", markup, re.S)
    return ET.fromstring(match[0])


def test_points_are_drawn_at_their_positions():
    root = svg_of(draw_chart(chart(labelled=True)))
    marks = [e for e in root.iter() if e.get("class") == "mark s0"]
    assert len(marks) == 2  # the third is not a number
    x, y = chart().scales()
    for mark, (across, up) in zip(marks, [(1, 10), (100, 20)], strict=True):
        assert float(mark.get("cx")) == pytest.approx(58 + x.place(across) * 362, abs=0.01)
        assert float(mark.get("cy")) == pytest.approx(242 - y.place(up) * 228, abs=0.01)
    assert marks[0].find("title").text == "one: 10.0 ± 2.0 at 1"
    names = [e.text for e in root.iter() if e.get("class") == "name"]
    assert names == ["one", "two"]
    assert root.get("role") == "img"
    assert root.find("title").text == "Title & more"
    assert root.find("desc").text == "KID against parameters; 4 points of a <b>, b"


def test_points_that_cannot_be_drawn_are_counted():
    assert chart().left_out == 2
    assert "2 points" in draw_chart(chart())
    empty = draw_chart(chart(series=[Series("a", [Point(-1, 1)])]))
    assert '<p class="lacks">' in empty
    assert "<svg" not in empty


def test_names_never_overlap():
    points = [Point(i % 7, i // 7, None, f"a long name {i}") for i in range(49)]
    root = svg_of(draw_chart(chart(series=[Series("a", points)], x=Axis("x"), labelled=True)))
    boxes = [
        (
            float(e.get("x")),
            float(e.get("y")) - 10,
            float(e.get("x")) + 6.2 * len(e.text),
            float(e.get("y")) + 2,
        )
        for e in root.iter()
        if e.get("class") == "name"
    ]
    assert len(boxes) >= 3
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] >= b[2] or b[0] >= a[2] or a[1] >= b[3] or b[1] >= a[3]


def test_bars_are_proportional_to_their_numbers():
    bars = Bars("t", "%", ["a", "b"], [("one", [10, 30]), ("two", [None, 20])])
    root = svg_of(draw_bars(bars))
    widths = [float(e.get("width")) for e in root.iter() if "bar" in (e.get("class") or "")]
    assert len(widths) == 3
    assert widths[1] == pytest.approx(3 * widths[0], rel=0.01)
    assert widths[2] == pytest.approx(2 * widths[0], rel=0.01)


def test_a_chart_that_fills_the_page_is_drawn_for_narrow_screens_too():
    text = draw_chart(chart(), wide=True)
    narrow, wide = (ET.fromstring(one) for one in re.findall(r"<svg viewBox=.*?</svg>", text)[:2])
    assert [e.get("class") for e in (narrow, wide)] == ["chart narrow", "chart wide"]
    assert [e.get("viewBox").split()[2] for e in (narrow, wide)] == ["440", "920"]
    marks = [[e for e in root.iter() if e.get("class") == "mark s0"] for root in (narrow, wide)]
    assert len(marks[0]) == len(marks[1]) == 2
    x, _ = chart().scales()
    assert float(marks[1][1].get("cx")) == pytest.approx(58 + x.place(100) * 842, abs=0.01)
    one, two, three = draw_plots([chart()] * 3)
    assert "chart wide" not in one + two
    assert "chart wide" in three


def test_an_axis_of_categories_shows_their_names():
    axis = Axis("sampler", names=["ddim", "<b>"])
    series = [Series("KID", [Point(0, 3), Point(1, 4)])]
    root = svg_of(draw_chart(chart(x=axis, series=series)))
    assert [e.text for e in root.iter("text")][:2] == ["ddim", "<b>"]
    assert axis.tick(2.0) == ""


def test_long_ticks_do_not_cover_the_label_of_their_axis():
    series = [Series("rate", [Point(0, 0.0), Point(1, 0.00012345)])]
    root = svg_of(draw_chart(chart(x=Axis("step"), y=Axis("learning rate"), series=series)))
    (label,) = (e for e in root.iter("text") if e.text == "learning rate")
    ticks = [e for e in root.iter("text") if e.get("text-anchor") == "end"]
    assert max(len(e.text) for e in ticks) >= 6
    for tick in ticks:
        assert float(tick.get("x")) - 6.2 * len(tick.text) > float(label.get("x")) + 6


def test_pale_series_are_not_in_the_legend():
    series = [
        Series("raw", [Point(0, 3), Point(1, 4)], joined=True, faint=True),
        Series("mean", [Point(0, 3.5), Point(1, 3.5)], joined=True),
    ]
    text = draw_chart(chart(x=Axis("step"), series=series))
    assert 'class="line s0 faint"' in text
    assert re.findall(r"<span>(.*?)</span>", text) == ["mean"]
    assert "2 points of mean" in text


def test_smoothing_keeps_constants_and_reduces_noise():
    flat = [Point(float(i), 3.0) for i in range(90)]
    assert [p.y for p in smooth(flat)] == pytest.approx([3.0] * 90)
    rough = [Point(float(i), math.exp((-1) ** i)) for i in range(90)]
    assert max(abs(math.log(p.y)) for p in smooth(rough)[3:-3]) < 0.2
    assert [p.x for p in smooth(rough)] == [p.x for p in rough]


# --- in a browser


@pytest.fixture(scope="module")
def chromium():
    with browser.chromium() as started:
        yield started


EVERY_PART = """
{% for text in texts %}
{% call section(text, text) %}
<p class="note">{{ text }}</p>
{{ lacks(text) }}
{{ facts([(text, text)]) }}
{{ table(tables[loop.index0]) }}
{{ picture(sample, text, text) }}
{{ strip([(text, text, sample)], text, text) }}
{{ layers([(text, text, sample)], text, text) }}
{{ charts(plots[loop.index0]) }}
{% call folded(text) %}{{ text }}{% endcall %}
{% endcall %}
{% endfor %}
"""


def sample_page(more: str = "") -> str:
    """Every part of a page with every hostile text in every field."""
    texts = browser.HOSTILE
    rows = [[[text, TableCell(text, value=text, note=text, code=True)]] for text in texts]
    heads = [[Column(text), Column(text, numeric=True, note=text)] for text in texts]
    plots = [
        (
            Chart(
                text,
                Axis(text, names=[text, text, text]),
                Axis(text),
                [
                    Series(text, [Point(1, 2, 1, text)], style=0),
                    Series(text, [Point(0, 1), Point(2, 2)], joined=True, faint=True),
                ],
                note=text,
                bands=[Band(text, 0, 2)],
                labelled=True,
            ),
            Bars(text, text, [text, text], [(text, [3.0, 2.0])], note=text),
            Chart(text, Axis(text), Axis(text), [Series(text, [Point(1, 2)])], cloud=True),
        )
        for text in texts
    ]
    return page_of(
        EVERY_PART + more,
        texts[1],
        texts[0],
        texts=texts,
        tables=[PageTable(h, r, label=h[0].title) for h, r in zip(heads, rows, strict=True)],
        sample=inline_picture(Image.new("RGB", (20, 10))),
        plots=[draw_plots(row) for row in plots],
    )


def test_hostile_text_stays_text(chromium, tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_bytes(sample_page().encode())
    with browser.opened(chromium, path) as seen:
        seen.check()
        assert seen.page.title() == browser.HOSTILE[1]
        assert seen.page.locator("h1").inner_text() == browser.HOSTILE[1]
        shown = seen.page.locator("section > p.note").all_inner_texts()
        assert shown[:6] == browser.HOSTILE[:6]
        assert shown[6] == "abc\\u202edcba\\u2066x\\u200b"
        assert seen.page.locator("script").count() == 1
        assert seen.page.locator("img").count() == 3 * len(browser.HOSTILE)
        # The policy stops even markup that is inserted.
        seen.page.evaluate(
            "() => { document.body.insertAdjacentHTML('beforeend',"
            " '<img src=x onerror=\"document.title = 1\">') }"
        )
        seen.page.wait_for_timeout(100)
        assert seen.page.title() == browser.HOSTILE[1]
        assert seen.dialogs == []
        assert any("Content Security Policy" in m for m in seen.messages)
    with browser.opened(chromium, path, viewport=browser.PHONE) as seen:
        assert seen.sideways() <= 0


COLUMNS = [Column("name"), Column("score", numeric=True)]
ROWS = [
    ["item 10", TableCell("1,200.0", value=1200.0)],
    ["item 9", TableCell("not a number", value=math.nan)],
    ["Item 2", -3.5],
    ["<b>", None],
    ["item 1", TableCell("5.0 ± 1.0", value=5.0)],
    ["item 3", 5.0],
    ["item 4", 1e-9],
]


def column(seen: browser.Opened, place: int) -> list[str]:
    return seen.page.locator(f"tbody tr > :nth-child({place})").all_inner_texts()


def test_tables_sort_both_ways_by_click_and_by_keyboard(chromium, tmp_path: Path):
    page = page_of("{{ table(t) }}", "sorting", t=PageTable(COLUMNS, ROWS, label="scores"))
    path = tmp_path / "page.html"
    path.write_bytes(page.encode())
    with browser.opened(chromium, path) as seen:
        heads = seen.page.locator("thead th")
        assert [heads.nth(i).get_attribute("aria-sort") for i in (0, 1)] == ["none", "none"]
        heads.nth(1).locator("button").click()
        up = ["Item 2", "item 4", "item 1", "item 3", "item 10", "item 9", "<b>"]
        assert column(seen, 1) == up  # equal values keep their order, missing values are last
        assert heads.nth(1).get_attribute("aria-sort") == "ascending"
        heads.nth(1).locator("button").click()
        assert column(seen, 1) == [
            "item 10",
            "item 1",
            "item 3",
            "item 4",
            "Item 2",
            "item 9",
            "<b>",
        ]
        assert heads.nth(1).get_attribute("aria-sort") == "descending"
        heads.nth(0).locator("button").focus()
        seen.page.keyboard.press("Enter")
        assert column(seen, 1) == [
            "<b>",
            "item 1",
            "Item 2",
            "item 3",
            "item 4",
            "item 9",
            "item 10",
        ]
        assert [heads.nth(i).get_attribute("aria-sort") for i in (0, 1)] == ["ascending", "none"]
        seen.page.keyboard.press("Space")
        assert column(seen, 1)[0] == "item 10"
        seen.check()


def test_tables_with_long_texts_are_stacked_on_a_phone(chromium, tmp_path: Path):
    rows = [["kid", 15.0, "word " * 30], ["fid", None, "short"]]
    columns = [Column("figure"), Column("value", numeric=True), Column("how")]
    page = page_of("{{ table(t) }}", "phone", t=PageTable(columns, rows, label="figures"))
    path = tmp_path / "page.html"
    path.write_bytes(page.encode())
    with browser.opened(chromium, path, viewport=browser.PHONE) as seen:
        seen.check()
        assert seen.sideways() <= 0
        boxes = [cell.bounding_box() for cell in seen.page.locator("tbody tr >> th, td").all()]
        assert [box is None for box in boxes] == [False, False, False, False, True, False]
        assert len({box["x"] for box in boxes if box}) == 1
        assert all(box["x"] + box["width"] <= 375 for box in boxes if box)
        result = seen.page.locator("td").first.evaluate(
            "e => getComputedStyle(e, '::before').content"
        )
        assert "value" in result
    with browser.opened(chromium, path) as seen:
        boxes = [cell.bounding_box() for cell in seen.page.locator("tbody tr >> th, td").all()]
        assert len({box["x"] for box in boxes}) == 3


def test_folded_parts_are_open_on_paper(chromium, tmp_path: Path):
    heads = [Column(f"a wide column {i}") for i in range(12)]
    page = page_of(
        '{% call folded("more") %}<p>inside</p>{% endcall %}{{ table(t) }}',
        "paper",
        t=PageTable(heads, [["x" * 20] * 12] * 80, label="wide"),
    )
    path = tmp_path / "page.html"
    path.write_bytes(page.encode())
    with browser.opened(chromium, path, dark=True) as seen:
        assert not seen.page.locator("details p").is_visible()
        sheet_of_paper = seen.page.pdf(format="A4", print_background=True)
        assert sheet_of_paper.startswith(b"%PDF")
        assert len(re.findall(rb"/Type\s*/Page\b", sheet_of_paper)) >= 2  # the table is not cut
        assert not seen.page.locator("details p").is_visible()
        seen.page.emulate_media(media="print", color_scheme="dark")
        seen.page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
        assert seen.page.locator("details p").is_visible()
        colours = seen.page.evaluate("() => getComputedStyle(document.body).backgroundColor")
        assert colours == "rgb(255, 255, 255)"
        box = seen.page.locator(".scroll")
        assert box.evaluate("e => getComputedStyle(e).overflowY") == "visible"
        assert box.evaluate("e => getComputedStyle(e).maxHeight") == "none"
        seen.page.evaluate("() => dispatchEvent(new Event('afterprint'))")
        assert not seen.page.locator("details[open]").count()


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_everything_is_readable_in_light_and_dark(dark: bool, chromium, tmp_path: Path):
    path = tmp_path / "page.html"
    path.write_bytes(sample_page('<p class="bad">bad</p>').encode())
    with browser.opened(chromium, path, dark=dark) as seen:
        ratio, text = browser.least_contrast(seen)
        assert ratio >= 4.5, text
