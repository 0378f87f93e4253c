"""The rounds: who takes part, what the server does with what arrives, how models are measured."""
