"""A folder as a hospital might bring it: about 600 small PNGs of mixed sizes, made up.

    python -m tests.support.hospital_folder FOLDER [SEED]

Three sites, two or three images a patient. An image is a dark, mottled field; a sick patient's has
a bright spot in it. The clinic's scanner shows everything inverted, and with noise. `manifest.csv`
has the columns path, label, site, patient.
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

PATIENTS = {"north": 110, "south": 70, "clinic": 60}  # two or three images each
LABELS = ("healthy", "sick")


def make_hospital_folder(folder, seed=0, patients=PATIENTS):
    """Write the images and `manifest.csv` into `folder`, made if need be; gives the rows."""
    folder, rng, rows = Path(folder), np.random.default_rng(seed), []
    for site, n in patients.items():
        (folder / site).mkdir(parents=True, exist_ok=True)
        for p in range(n):
            label = LABELS[p % 2]
            for k in range(2 + int(rng.random() < 0.5)):
                path = f"{site}/{p:03d}_{k}.png"
                pixels = scanned(site, scene(label, rng), rng)
                Image.fromarray(pixels).save(folder / path, compress_level=1)
                rows.append({"path": path, "label": label, "site": site, "patient": f"{site}-{p}"})
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return rows


def scene(label, rng):
    """What there is to see, `[height, width]` from 0 to 1, in a size of its own."""
    height, width = (int(size) for size in rng.integers(24, 72, 2))
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j]
    phases = rng.uniform(0, 2 * np.pi, 4)
    mottled = np.sin(5 * x + phases[0]) * np.cos(4 * y + phases[1]) + np.sin(9 * (x + y))
    image = 0.2 + 0.05 * mottled
    if label == "sick":
        cy, cx, radius = *rng.uniform(0.35, 0.65, 2), rng.uniform(0.14, 0.2)
        image = image + 0.65 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * radius**2))
    return np.clip(image, 0, 1)


def scanned(site, image, rng):
    """As the site's scanner shows it, uint8."""
    if site == "clinic":
        image = 1 - image + rng.normal(0, 0.12, image.shape)
    else:
        image = image + rng.normal(0, 0.02, image.shape)
    return (np.clip(image, 0, 1) * 255).round().astype(np.uint8)


if __name__ == "__main__":
    made = make_hospital_folder(sys.argv[1], *map(int, sys.argv[2:3]))
    print(f"{len(made)} images in {sys.argv[1]}")
