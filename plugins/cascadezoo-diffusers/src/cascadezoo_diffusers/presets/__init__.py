"""The specs that the plugin ships, one JSON file each."""
