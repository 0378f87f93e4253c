"""The six MNIST rows that Opacus and TensorFlow Privacy print, with their epsilons recomputed.

The published figures come from RDP with the conversion of 2017; today's conversion and the PRV
accountant make less of the same training. Prints a Markdown table; takes some seconds.
"""

import pandas as pd

from fedexp.privacy.accounting import Event, epsilon, mironov_2017_epsilon

EXAMPLES, DELTA = 60_000, 1e-5
# Where, batch size, noise multiplier, epochs, epsilon as printed there.
PUBLISHED = (
    ("Opacus, MNIST example", 240, 0.7, 45, 6.86),
    ("Opacus, MNIST example", 240, 1.1, 60, 2.91),
    ("Opacus, MNIST example", 240, 1.3, 15, 1.16),
    ("TF Privacy, MNIST tutorial", 256, 1.3, 15, 1.19),
    ("TF Privacy, MNIST tutorial", 256, 1.1, 60, 3.01),
    ("TF Privacy, MNIST tutorial", 256, 0.7, 45, 7.10),
)


def main() -> None:
    rows = []
    for source, batch_size, noise, epochs, printed in PUBLISHED:
        # The published figures count whole batches, the last one smaller than the others left out.
        history = [Event(noise, batch_size / EXAMPLES, epochs * EXAMPLES // batch_size)]
        rows.append(
            {
                "published by": source,
                "batch": batch_size,
                "noise": noise,
                "epochs": epochs,
                "printed": f"{printed:.2f}",
                "RDP, conversion of 2017": f"{mironov_2017_epsilon(history, DELTA):.2f}",
                "RDP": f"{epsilon(history, DELTA, 'rdp').epsilon:.3f}",
                "PRV": f"{epsilon(history, DELTA, 'prv').epsilon:.3f}",
            }
        )
    print(pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True))


if __name__ == "__main__":
    main()
