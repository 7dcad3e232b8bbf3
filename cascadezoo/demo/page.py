"""The page: Gradio components around the functions of ``drawing.py``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import gradio as gr
from markupsafe import Markup
from PIL import Image

from cascadezoo._version import __version__
from cascadezoo.demo.drawing import (
    ALL_CLASSES,
    MOST_IMAGES,
    DemoModel,
    DrawSettings,
    draw_samples,
    draw_trajectory,
    inpaint_picture,
    sample_for_editing,
    upscale_picture,
)
from cascadezoo.errors import CascadezooError
from cascadezoo.util.numbers import human_seconds
from cascadezoo.util.text import page_text

__all__ = ["CSS", "demo_page", "theme"]

_DEFAULT = "the model's"
_GENERATOR = "the generator"
_LARGEST_SEED = 2**53 - 1
"""The largest number that JavaScript counts exactly."""

_MOST_STEPS = 1000

CSS = """
.gradio-container { max-width: 1400px !important; margin: 0 auto; }
.pane { min-width: min(100%, 260px) !important; }
.pane h3 { margin: 0; }
.pane .image-container { padding-top: 34px; }
.failed { border-left: 4px solid #c0392b; padding: .4em .8em; }
.scroll { overflow-x: auto; }
.facts { border-collapse: collapse; margin: .4em 0 1em; }
.facts th, .facts td { text-align: left; padding: .25em .6em !important; vertical-align: top;
  border: solid var(--border-color-primary) !important; border-width: 0 0 1px !important; }
.facts { border: 0 !important; font-size: 14px; font-variant-numeric: tabular-nums; }
footer { display: none !important; }
@media (max-width: 480px) {
  .tab-wrapper button { padding: 0 5px !important; font-size: 14px !important; }
}
"""

Task = Callable[..., list[Image.Image]]
"""Draws the pictures of a model from the settings and further values of components."""


def theme() -> Any:
    """The look of the page. Its fonts are those of the machine: none is fetched."""
    return gr.themes.Default(
        font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )


def demo_page(models: Sequence[DemoModel], chosen: int = 1) -> Any:
    """Build the page.

    Args:
        models: at least one.
        chosen: how many of them are shown at first.

    Returns:
        The page, a ``gradio.Blocks``.
    """
    titles = _titles(models)
    title = ", ".join(titles) if len(titles) <= 3 else "cascadezoo"
    with gr.Blocks(title=f"{title} - cascadezoo", analytics_enabled=False) as page:
        gr.HTML(_head(models))
        with gr.Row():
            with gr.Column(scale=1, min_width=260):
                settings = _Settings(models, titles, chosen)
            with gr.Column(scale=3, min_width=300), gr.Tabs():
                tabs = [
                    _draw_tab(models, titles, settings),
                    _trajectory_tab(models, titles, settings),
                    _upscale_tab(models, titles, settings),
                    _inpaint_tab(models, titles, settings),
                    _card_tab(models, titles, settings),
                ]
        columns = [column for panes in tabs for column in panes.columns]

        def show(names: list[str]) -> list[Any]:
            return [gr.update(visible=name in names) for _ in tabs for name in titles]

        settings.models.change(show, settings.models, columns, show_progress="hidden")
    return page


class _Settings:
    """The components that all tabs share, and their values as settings."""

    def __init__(self, models: Sequence[DemoModel], titles: list[str], chosen: int) -> None:
        self.chosen = titles[:chosen]
        self.models = gr.Dropdown(
            titles,
            value=self.chosen,
            multiselect=True,
            label="Models",
            info="Several are shown side by side.",
            visible=len(titles) > 1,
        )
        labels = list(dict.fromkeys(label for model in models for label in model.labels))
        self.label = gr.Dropdown(
            [ALL_CLASSES, *labels], value=ALL_CLASSES, label="Class", elem_id="label"
        )
        self.seed = gr.Number(
            0, label="Seed", precision=0, minimum=0, maximum=_LARGEST_SEED, elem_id="seed"
        )
        with gr.Accordion("More settings", open=False):
            self.n = gr.Slider(1, MOST_IMAGES, value=16, step=1, label="Images")
            self.steps = gr.Number(
                None,
                label="Steps",
                placeholder=_DEFAULT,
                precision=0,
                minimum=1,
                maximum=_MOST_STEPS,
            )
            self.guidance = gr.Number(
                None,
                label="Guidance",
                placeholder=_DEFAULT,
                minimum=0,
                maximum=1000,
                info="1 is none; 2 to 4 follow the class more closely.",
            )
            names = sorted({name for model in models for name in model.samplers})
            self.sampler = gr.Dropdown([_DEFAULT, *names], value=_DEFAULT, label="Sampler")

    @property
    def components(self) -> list[Any]:
        """The inputs of every task."""
        return [
            self.models,
            self.label,
            self.seed,
            self.n,
            self.steps,
            self.guidance,
            self.sampler,
        ]

    @staticmethod
    def read(
        label: str, seed: float, n: float, steps: float | None, guidance: float | None, sampler: str
    ) -> DrawSettings:
        """The settings from the values of the components after the first."""
        return DrawSettings(
            label=None if label == ALL_CLASSES else label,
            n=int(n),
            seed=int(seed or 0),
            steps=None if steps is None else int(steps),
            guidance=guidance,
            sampler=None if sampler == _DEFAULT else sampler,
        )


class _Panes:
    """A column for each model: its name, a note, and pictures.

    Args:
        models: the models.
        titles: their names on the page.
        settings: the shared settings.
        pictures: the labels of the pictures of a column.
        before: the content of the notes before anything is drawn.
    """

    def __init__(
        self,
        models: Sequence[DemoModel],
        titles: list[str],
        settings: _Settings,
        pictures: Sequence[str],
        before: Sequence[str] | None = None,
    ) -> None:
        self.models = models
        self.titles = titles
        self.settings = settings
        self.count = len(pictures)
        self.columns: list[Any] = []
        self.outputs: list[Any] = []
        with gr.Row():
            for number, title in enumerate(titles):
                column = gr.Column(
                    min_width=280, visible=title in settings.chosen, elem_classes="pane"
                )
                with column:
                    gr.HTML(str(Markup("<h3>{}</h3>").format(title)))
                    self.outputs.append(gr.HTML(before[number] if before else ""))
                    self.outputs += [
                        gr.Image(
                            label=label,
                            type="pil",
                            format="png",
                            interactive=False,
                            visible=False,
                            buttons=["download", "fullscreen"],
                            alt_text=f"{label} of {title}",
                        )
                        for label in pictures
                    ]
                self.columns.append(column)

    def on(self, listeners: Sequence[Any], task: Task, inputs: Sequence[Any] = ()) -> None:
        """Run a task for each shown model when one of the events (``button.click``) occurs."""
        settings = self.settings

        def run(names: list[str], *values: Any) -> Iterator[list[Any]]:
            shared = len(settings.components) - 1
            request = settings.read(*values[:shared])
            rows: list[Any] = [gr.skip() for _ in self.outputs]
            if not names:
                rows[0] = _failed("No model is chosen.", "choose one under Models")
            width = 1 + self.count
            for number, title in enumerate(self.titles):
                if title not in names:
                    continue
                rows[number * width : (number + 1) * width] = self._drawn(
                    task, self.models[number], request, values[shared:]
                )
                yield rows
            if not names:
                yield rows

        for listen in listeners:
            listen(
                run,
                [*settings.components, *inputs],
                self.outputs,
                # One at a time: the models share the processor.
                concurrency_limit=1,
                concurrency_id="models",
                api_visibility="private",
            )

    def _drawn(
        self, task: Task, model: DemoModel, request: DrawSettings, values: Sequence[Any]
    ) -> list[Any]:
        """The note and the pictures of a model; the note of an error and no pictures."""
        began = time.monotonic()
        try:
            pictures = task(model, request, *values)
        except CascadezooError as error:
            empty = [gr.update(value=None, visible=False)] * self.count
            return [_failed(error.what, error.hint), *empty]
        note = f"drawn in {human_seconds(time.monotonic() - began)}"
        rows = [gr.update(value=picture, visible=True) for picture in pictures[: self.count]]
        rows += [gr.update(value=None, visible=False)] * (self.count - len(rows))
        return [f"<p>{note}</p>", *rows]


def _draw_tab(models: Sequence[DemoModel], titles: list[str], settings: _Settings) -> _Panes:
    with gr.Tab("Draw"):
        with gr.Row():
            draw = gr.Button("Draw", variant="primary", elem_id="draw", min_width=120)
            another = gr.Button("Another seed", elem_id="another", min_width=120)
        panes = _Panes(models, titles, settings, ["Samples", "Stage by stage"])
        following = another.click(
            lambda seed: (int(seed or 0) + 1) % _LARGEST_SEED,
            settings.seed,
            settings.seed,
            show_progress="hidden",
            api_visibility="private",
        )
        panes.on([draw.click, following.then, settings.label.input], draw_samples)
    return panes


def _trajectory_tab(models: Sequence[DemoModel], titles: list[str], settings: _Settings) -> _Panes:
    with gr.Tab("Trajectory"):
        gr.HTML("<p>A stage on its way from noise to image.</p>")
        stages = list(dict.fromkeys(name for model in models for name in model.iterative))
        with gr.Row(equal_height=True):
            stage = gr.Dropdown(
                [_GENERATOR, *stages], value=_GENERATOR, label="Stage", min_width=240
            )
            draw = gr.Button("Draw", variant="primary", elem_id="draw-trajectory", min_width=120)
        panes = _Panes(models, titles, settings, ["Trajectory"])

        def task(model: DemoModel, request: DrawSettings, name: str) -> list[Image.Image]:
            return draw_trajectory(model, request, None if name == _GENERATOR else name)

        panes.on([draw.click], task, [stage])
    return panes


def _upscale_tab(models: Sequence[DemoModel], titles: list[str], settings: _Settings) -> _Panes:
    with gr.Tab("Upscale"):
        gr.HTML("<p>The upsamplers of a model enlarge your picture, up to 256x256 pixels.</p>")
        picture = gr.Image(
            label="Picture", type="pil", image_mode=None, sources=["upload", "clipboard"],
            height=260, elem_id="upscale-picture", alt_text="the picture to enlarge",
        )  # fmt: skip
        enlarge = gr.Button("Upscale", variant="primary", elem_id="upscale")
        panes = _Panes(models, titles, settings, ["Enlarged"])
        panes.on([enlarge.click], upscale_picture, [picture])
    return panes


def _inpaint_tab(models: Sequence[DemoModel], titles: list[str], settings: _Settings) -> _Panes:
    with gr.Tab("Inpaint"):
        gr.HTML("<p>Paint over a part of a picture; the model redraws it.</p>")
        note = gr.HTML("")
        start = gr.Button("Draw a picture", elem_id="inpaint-start")
        editor = gr.ImageEditor(
            label="Picture", type="pil", sources=["upload", "clipboard"], height=420,
            brush=gr.Brush(colors=["#ffffff"], color_mode="fixed", default_size=24),
            layers=False, transforms=(), canvas_size=(256, 256), format="png",
            elem_id="inpaint-picture",
        )  # fmt: skip
        strength = gr.Slider(
            0.1, 1.0, value=1.0, step=0.05, label="Strength",
            info="Below 1, the new part starts from the old one.",
        )  # fmt: skip
        redraw = gr.Button("Inpaint", variant="primary", elem_id="inpaint")
        panes = _Panes(models, titles, settings, ["Redrawn"])

        def begin(names: list[str], *values: Any) -> list[Any]:
            request = settings.read(*values)
            title = names[0] if names else titles[0]
            try:
                picture = sample_for_editing(models[titles.index(title)], request)
            except CascadezooError as error:
                return [gr.skip(), _failed(error.what, error.hint)]
            return [{"background": picture, "layers": [], "composite": None}, ""]

        def task(
            model: DemoModel, request: DrawSettings, edited: dict[str, Any] | None, share: float
        ) -> list[Image.Image]:
            value = edited or {}
            picture, layers = value.get("background"), value.get("layers") or []
            return inpaint_picture(model, request, picture, layers, share)

        start.click(
            begin, settings.components, [editor, note], concurrency_limit=1,
            concurrency_id="models", api_visibility="private",
        )  # fmt: skip
        panes.on([redraw.click], task, [editor, strength])
    return panes


def _card_tab(models: Sequence[DemoModel], titles: list[str], settings: _Settings) -> _Panes:
    with gr.Tab("Card"):
        return _Panes(models, titles, settings, [], before=[_card(model) for model in models])


def _titles(models: Sequence[DemoModel]) -> list[str]:
    """A name for each model; models of one name show their reference."""
    names = [page_text(model.name) for model in models]
    return [
        name if names.count(name) == 1 else f"{name} ({page_text(model.reference)})"
        for name, model in zip(names, models, strict=True)
    ]


def _head(models: Sequence[DemoModel]) -> str:
    if len(models) > 1:
        about = "Image generators made of stages: choose models, a class and a seed, and draw."
    else:
        about = models[0].resolved.spec.description or "An image generator made of stages."
    text = Markup("<h2>cascadezoo</h2><p>{}</p>")
    return str(text.format(page_text(about)[:400]))


def _failed(what: str, hint: str | None) -> str:
    """An error of the cascade on the page."""
    lines = [Markup("<b>{}</b>").format(page_text(what))]
    if hint:
        lines.append(Markup("Hint: {}").format(page_text(hint)))
    box = Markup('<div class="failed" role="alert">{}</div>')
    return str(box.format(Markup("<br>").join(lines)))


def _card(model: DemoModel) -> str:
    """The stages and figures of a model."""
    stages = [
        (stage.name, stage.kind, f"{stage.input or 'noise'} → {stage.output}")
        for stage in model.resolved.stages
    ]
    figures = [
        (
            f"{figure.metric}{f' ({figure.extractor})' if figure.extractor else ''}",
            figure.text.replace("+-", "±"),
            f"{figure.n:,}{f', {figure.split}' if figure.split else ''}",
        )
        for figure in model.figures
    ]
    parts = [_table(("Stage", "Kind", "Image"), stages)]
    if figures:
        parts.append(_table(("Figure", "Value", "Images"), figures))
    else:
        parts.append(Markup("<p>Its card has no figures.</p>"))
    facts = f"{model.reference}, digest {model.digest[:12]}, cascadezoo {__version__}"
    return str(Markup("").join([*parts, Markup("<p>{}</p>").format(page_text(facts))]))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Markup:
    heads = Markup("").join(Markup("<th>{}</th>").format(name) for name in head)
    lines = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(Markup("<td>{}</td>").format(page_text(c)) for c in row)
        )
        for row in rows
    )
    whole = Markup('<div class="scroll"><table class="facts"><tr>{}</tr>{}</table></div>')
    return whole.format(heads, lines)
