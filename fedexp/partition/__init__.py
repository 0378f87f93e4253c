"""Who holds what: one file a way of dealing the training part to the clients."""
