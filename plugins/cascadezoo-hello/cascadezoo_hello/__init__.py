"""What the plugin registers. No torch here: every command of cascadezoo loads this file."""

from cascadezoo import StageEntry, hookimpl


@hookimpl
def register_stages():
    """The kinds that specs may name."""
    yield StageEntry(
        name="linear-sr.v1",
        role="upsampler",
        summary="bicubic interpolation, corrected by one learned filter",
        config="cascadezoo:UpsamplerConfig",
        impl="cascadezoo_hello.stage:LinearUpsampler",
        api=1,
    )
