"""The Hugging Face Hub and model references. Free of torch.

A reference enters; the path of a checked model folder leaves. Publishing, searching and the check
of zoo entries against the Hub are here too; only this package talks to the network for models.
"""
