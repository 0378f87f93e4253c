"""Is the epsilon that was claimed true? Canaries that test it."""
