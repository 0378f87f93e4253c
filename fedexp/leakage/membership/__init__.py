"""Who was trained on: attacks that tell members from others."""
