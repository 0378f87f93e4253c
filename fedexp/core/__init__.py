"""What everybody may know: the data that flows, the parts' interfaces, checks, randomness."""
