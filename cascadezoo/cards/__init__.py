"""The metric card: README.md of a model. Free of torch.

A spec and its metrics.json enter; a card leaves. Cards that people edited are merged, and what a
card claims is compared with metrics.json.
"""
