"""What malicious clients do to their data before training, and to their rows after it."""
