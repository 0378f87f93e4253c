"""Collections of labelled examples: where they lie, how they are fetched, checked and split."""
