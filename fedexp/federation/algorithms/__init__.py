"""Algorithms: what clients and server do around local training and aggregation. One a file."""
