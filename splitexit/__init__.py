"""Decide where a neural network should run: on the device, on the edge server, or split between them."""

__version__ = "0.1.0"
