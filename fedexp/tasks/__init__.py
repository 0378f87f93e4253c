"""What labels mean: loss, prediction and metrics, one task a file."""
