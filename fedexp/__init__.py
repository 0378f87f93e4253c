"""fedexp: an experiment runner for federated learning."""

__version__ = "0.1.0"
