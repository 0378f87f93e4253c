"""From the bytes of an image file to `[channels, size, size]` uint8, by Pillow."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import Literal, final

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fedexp.core.checks import InputError, at_least, one_of, positive

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF")
LARGEST = 2**15  # pixels a side
WHITE_OF_16_BIT = 65535
Fit = Literal["pad", "crop", "stretch"]


class Unreadable(Exception):
    """A file that is no image that we read; the message says why in a few words."""


@final
@dataclass(frozen=True)
class Picture:
    """What a file is, as it lies there."""

    width: int
    height: int
    mode: str  # Pillow's: L, RGB, I;16, ...
    coloured: bool  # whether any pixel is not grey
    brightest: int  # the largest value; of modes with more than 8 bits, else 0


@final
@dataclass(frozen=True)
class Decoding:
    """How a file becomes pixels.

    Args:
        size: pixels a side.
        channels: 1 (grey) or 3 (RGB).
        fit: how an image becomes a square: pad (black bars), crop (the middle), stretch.
        white: the value that is white in images of more than 8 bits; None: 65535.
    """

    size: int
    channels: int
    fit: Fit
    white: float | None

    def __post_init__(self) -> None:
        at_least(1, size=self.size)
        if self.size > LARGEST:
            raise InputError(f"must be at most {LARGEST}", "size", self.size)
        if self.channels not in (1, 3):
            raise InputError("must be 1 (grey) or 3 (colour)", "channels", self.channels)
        one_of(("pad", "crop", "stretch"), fit=self.fit)
        if self.white is not None:
            positive(white=self.white)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of what comes out."""
        return self.channels, self.size, self.size

    def __call__(self, content: bytes) -> tuple[np.ndarray, Picture]:
        """The pixels, and what the file is; raises Unreadable."""
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as image:
                frames = getattr(image, "n_frames", 1)
                if frames > 1:
                    raise Unreadable(f"has {frames} frames, and single images are read")
                image.load()
                return self._decoded(image)
        except Unreadable:
            raise
        except UnidentifiedImageError:
            raise Unreadable("is no image" if content else "is empty") from None
        except Exception as error:  # whatever a decoder makes of a broken file
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise Unreadable(f"is damaged: {reason}") from None

    def _decoded(self, image: Image.Image) -> tuple[np.ndarray, Picture]:
        (width, height), mode, brightest = image.size, image.mode, 0
        upright = ImageOps.exif_transpose(image)
        if mode.startswith(("I", "F")):
            upright, brightest = self._of_many_bits(upright)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            with_alpha = upright.convert("RGBA")
            black = Image.new("RGBA", with_alpha.size, (0, 0, 0, 255))
            upright = Image.alpha_composite(black, with_alpha).convert("RGB")
        coloured = False
        if upright.mode not in ("L", "1"):
            upright = upright.convert("RGB")
            rgb = np.asarray(upright)
            coloured = bool((rgb != rgb[..., :1]).any())
        squared = self._squared(upright.convert("L" if self.channels == 1 else "RGB"))
        pixels = np.asarray(squared, np.uint8).reshape(self.size, self.size, self.channels)
        picture = Picture(width, height, mode, coloured, brightest)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), picture

    def _of_many_bits(self, image: Image.Image) -> tuple[Image.Image, int]:
        """In 8 bits, and the largest value."""
        values = np.asarray(image).astype(np.float64)
        if not np.isfinite(values).all():
            raise Unreadable("holds values that are not finite")
        white = self.white
        if white is None:
            if image.mode.startswith("F") or not 0 <= values.min() <= values.max() <= 65535:
                raise Unreadable(
                    f"has values {values.min():g} to {values.max():g}; say which is white: "
                    "dataset.white=NUMBER"
                )
            white = WHITE_OF_16_BIT
        levels = np.clip(values * (255 / white), 0, 255).round().astype(np.uint8)
        return Image.fromarray(levels), int(min(values.max(), 2**53))

    def _squared(self, image: Image.Image) -> Image.Image:
        side, how = (self.size, self.size), Image.Resampling.BILINEAR
        if image.size == side:
            return image
        if self.fit == "pad":
            return ImageOps.pad(image, side, how)
        if self.fit == "crop":
            return ImageOps.fit(image, side, how)
        return image.resize(side, how)
