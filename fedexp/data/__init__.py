"""Collections of labelled images: where they lie, how they are fetched, checked and split."""
