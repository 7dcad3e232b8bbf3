"""The metric card: README.md of a model. Free of torch.

A spec and its metrics.json enter; a card leaves. Manual edits are merged, and the claims of a card
are compared with metrics.json.
"""
