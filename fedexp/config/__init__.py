"""From the words of a config to the parts of an experiment; Hydra ends here."""
