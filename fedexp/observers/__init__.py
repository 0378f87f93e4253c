"""Who watches the rounds: the record, the progress on the terminal, trackers, early stopping."""
