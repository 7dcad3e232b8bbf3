"""The hooks of the plugin. Do not import torch: every command of cascadezoo imports this file."""

from cascadezoo import StageEntry, hookimpl


@hookimpl
def register_stages():
    """The stage kinds of the plugin."""
    yield StageEntry(
        name="linear-sr.v1",
        role="upsampler",
        summary="bicubic interpolation, corrected by one learned filter",
        config="cascadezoo:UpsamplerConfig",
        impl="cascadezoo_hello.stage:LinearUpsampler",
        api=1,
    )
