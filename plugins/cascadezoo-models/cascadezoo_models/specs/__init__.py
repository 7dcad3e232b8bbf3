"""The specs that the models of this distribution were trained by."""
