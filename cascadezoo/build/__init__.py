"""The main job: from a spec to a finished model folder.

A spec enters; a run folder leaves, with the events of the training and a model that is measured,
sealed and ready to publish. Plans and parameter counts on demand are computed here too.
"""
