"""Protection: from the groups `privacy` and `channel` of a config to what a run does and promises.

    plan.py         what the run is going to release, and the protection that is made for it
    terms.py        what the user wants to be promised, and the noise that it takes
    stand_ins.py    a number wherever noise is still to be calibrated
    examples.py     one example of a client: DP-SGD
    central.py      one client: the server's noise on the sum
    local.py        one client: its own noise on its row, Gaussian or Laplace
    distributed.py  one client: everybody's shares of noise behind secure aggregation
    protect.py      which of them a run needs

A mechanism's noise may be given, or left to be calibrated: `target_epsilon` is then held against
everything that the run plans to release (its rounds, who takes part in them, local steps), and the
noise is the least that keeps within it: none for infinity, where only clipping is left. Who takes
part is drawn from the seed, not from the data, so it may be looked up in advance.
"""
