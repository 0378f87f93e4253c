"""Opacus's Rényi divergences, remembered: every PRV answer asks for the same ones again.

`_compute_log_a(q, sigma, alpha)` is a function of three numbers. Opacus evaluates it at 150 orders
to find the domain of each PRV answer, whatever the number of steps: most of an answer's time.
"""

import sys
from functools import cache

PLACE = "opacus.accountants.analysis.rdp"


def install_once_imported() -> None:
    """Opacus takes seconds to import; a test that needs it does so itself."""
    rdp = sys.modules.get(PLACE)
    if rdp is not None and not hasattr(rdp._compute_log_a, "cache_info"):
        rdp._compute_log_a = cache(rdp._compute_log_a)
