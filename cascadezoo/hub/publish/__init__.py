"""Publishing a model: to a folder, or to a repo on the Hub."""
