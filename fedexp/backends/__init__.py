"""Where clients are trained and models evaluated: in this process, or in a pool of processes."""
