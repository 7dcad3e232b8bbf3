"""The specs of the plugin."""
