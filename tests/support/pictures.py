"""What tests ask of a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image


def drawn(path: Path) -> bool:
    """Whether the picture holds more than an empty figure."""
    pixels = np.asarray(Image.open(path).convert("L"), dtype=float)
    return min(pixels.shape) > 150 and pixels.std() > 8


def legend(figure: Figure) -> str:
    """The lines of a figure's legends."""
    return "\n".join(text.get_text() for item in figure.legends for text in item.get_texts())
