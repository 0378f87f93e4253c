"""Who holds what: one file a way of assigning the training part to the clients."""
