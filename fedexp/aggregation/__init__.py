"""Rules that make one step of the clients' rows, and the server optimisers that apply it."""
