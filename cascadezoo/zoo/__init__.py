"""The zoo: the models that cascadezoo and plugins list. Free of torch."""
