"""What federation is worth to each site, on its own patients."""
