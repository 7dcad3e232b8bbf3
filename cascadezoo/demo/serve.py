"""Serves the page. Gradio is imported here only."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cascadezoo.errors import InputError

if TYPE_CHECKING:
    from cascadezoo.demo.drawing import DemoModel

__all__ = ["LOCAL", "Served", "default_models", "launch_demo", "require_gradio", "start_demo"]

LOCAL = "127.0.0.1"
"""The address that only this machine reaches."""

MOST_MODELS = 8
_LARGEST_UPLOAD = 32 << 20


def require_gradio() -> str:
    """Import Gradio; returns its version.

    Raises:
        InputError: it is not installed, or an installation that cannot be imported.
    """
    try:
        return str(importlib.import_module("gradio").__version__)
    except (ImportError, AttributeError) as error:  # a folder named gradio has no version
        raise InputError(
            f"the demo needs gradio, which is not installed ({error})",
            hint="pip install 'cascadezoo[demo]'",
            code="input-gradio-missing",
        ) from error


def default_models() -> list[str]:
    """The models of the page if none is named: those that are on this machine with a package."""
    from cascadezoo.spec.requires import missing
    from cascadezoo.zoo.list import get_zoos

    rows = [row.model for row in get_zoos().matching()]
    names = [row.name for row in rows if row.bundled and not missing(row.requires)]
    return names[:MOST_MODELS]


def check_count(models: Sequence[str]) -> None:
    """Check the number of models of a page.

    Raises:
        InputError: none, or too many.
    """
    if not 1 <= len(models) <= MOST_MODELS:
        raise InputError(
            f"a page shows 1 to {MOST_MODELS} models, not {len(models)}",
            hint="cascadezoo demo MODEL MODEL",
            code="input-demo-models",
            count=len(models),
        )


@dataclass
class Served:
    """A page that is being served.

    Args:
        page: the ``gradio.Blocks``.
        url: its address on this machine.
    """

    page: Any
    url: str

    def wait(self) -> None:
        """Serve until the process is interrupted."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            self.close()

    def close(self) -> None:
        """Stop serving."""
        self.page.close(verbose=False)


def start_demo(
    models: Sequence[DemoModel],
    *,
    chosen: int = 1,
    host: str | None = LOCAL,
    port: int | None = None,
    browse: bool = False,
) -> Served:
    """Serve the page of loaded models. It is on no public link.

    Args:
        models: the models.
        chosen: how many of them are shown at first.
        host: the address to listen on; None is that of ``GRADIO_SERVER_NAME``, or only this
            machine's.
        port: the port; None takes the first free one from 7860 on.
        browse: open the page in a browser.

    Raises:
        InputError: gradio is missing, or the address cannot be used.
    """
    require_gradio()
    from cascadezoo.demo.page import CSS, demo_page, theme

    page = demo_page(models, chosen)
    try:
        _, url, _ = page.launch(
            server_name=host,
            server_port=port,
            share=False,
            inbrowser=browse,
            prevent_thread_lock=True,
            quiet=True,
            theme=theme(),
            css=CSS,
            footer_links=[],
            run_history=False,
            ssr_mode=False,
            mcp_server=False,
            max_file_size=_LARGEST_UPLOAD,
        )
    except OSError as error:
        where = f"{host or LOCAL}:{port}" if port is not None else str(host or LOCAL)
        raise InputError(
            f"the page cannot be served at {where}: {error}",
            hint="choose another --port or --host",
            code="input-demo-address",
            host=host,
            port=port,
        ) from error
    return Served(page, str(url))


def launch_demo(
    models: Sequence[str] | None = None,
    *,
    digests: Mapping[str, str] | None = None,
    host: str | None = None,
    port: int | None = None,
    device: str = "auto",
) -> None:
    """Serve a page to play with models, until the process is interrupted.

    The page draws pictures by class, seed, steps, guidance and sampler, stage by stage and from
    noise to image; it enlarges and inpaints pictures, and shows the figures of the cards. Needs
    ``pip install 'cascadezoo[demo]'``.

    Args:
        models: runs, model folders, zoo names or repos on the Hub, up to eight; None takes the
            installed zoo models.
        digests: the digest that a model must have, by reference, as ``cascadezoo sample --json``
            prints it.
        host: the address to listen on; None is that of ``GRADIO_SERVER_NAME``, which a Space sets,
            or 127.0.0.1, which only this machine reaches.
        port: the port; None takes the first free one from 7860 on.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.

    Raises:
        InputError: gradio is missing, the models are too many, or the address cannot be used.
        ModelError: a model has another digest.
        CascadezooError: a model does not exist or cannot be used.
    """
    require_gradio()
    references = list(models) if models is not None else default_models()
    check_count(references)
    loaded = load_models(references, device=device, digests=digests)
    start_demo(loaded, chosen=len(references) if models else 1, host=host, port=port).wait()


def load_models(
    references: Sequence[str],
    *,
    device: str = "auto",
    revision: str | None = None,
    offline: bool | None = None,
    digests: Mapping[str, str] | None = None,
) -> list[DemoModel]:
    """The models of a page, without their weights.

    Raises:
        CascadezooError: a model does not exist, has another digest, or cannot be used.
    """
    from cascadezoo.demo.drawing import DemoModel
    from cascadezoo.train.engine import pick_device

    home = str(pick_device(device))
    return [
        DemoModel(
            reference,
            device=home,
            revision=revision,
            offline=offline,
            digest=(digests or {}).get(reference),
        )
        for reference in dict.fromkeys(references)
    ]
