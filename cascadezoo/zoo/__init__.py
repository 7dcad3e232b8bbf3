"""The zoo: the models that cascadezoo and installed plugins list. Free of torch.

Manifests enter; entries leave, by name. ``models/`` holds the models that ship with the package.
"""
