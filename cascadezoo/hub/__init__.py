"""The Hugging Face Hub and model references. Free of torch.

A reference enters; the path of a checked model folder leaves. The package also publishes models,
searches the Hub and checks zoo entries against it. Only this package uses the network for models.
"""
