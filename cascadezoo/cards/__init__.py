"""The metric card of a model. Free of torch."""
