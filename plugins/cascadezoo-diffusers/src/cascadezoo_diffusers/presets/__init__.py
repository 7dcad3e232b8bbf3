"""The specs of the plugin, one JSON file each."""
