"""Leakage: what an adversary can learn of the training data from what a run lets it see.

    victim.py       a finished run, opened again
    observation.py  what an adversary sees and knows, and what it makes of it
    study.py        what every study of a run gives back

Attacks know observations only; studies hold the truth and compare.
"""
