"""fedexp beside its peers: the same arrays, the same first model, everybody's own public API."""
