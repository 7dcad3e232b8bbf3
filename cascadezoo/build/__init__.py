"""The main job: from a spec to a finished model folder.

A spec enters; a run folder leaves, with the events of the training and an evaluated, sealed model
that is ready to publish. Plans, and widths for a given number of parameters, are computed here too.
"""
