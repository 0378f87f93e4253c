"""Local training: one client, one call."""
