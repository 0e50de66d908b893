"""Write src/seeless/tiny/digits.npz: scikit-learn's digits with a fixed split, 1,400 for training, 397 held out.

Needs scikit-learn, which nothing else here does.
"""

from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

if __name__ == "__main__":
    data = load_digits()
    held_out = np.zeros(len(data.images), dtype=bool)
    held_out[np.random.default_rng(0).permutation(len(data.images))[1400:]] = True
    target = Path(__file__).parents[1] / "src/seeless/tiny/digits.npz"
    np.savez_compressed(
        target, pictures=data.images.astype(np.uint8), labels=data.target.astype(np.uint8), held_out=held_out
    )
    print(f"{target.name}: {len(held_out)} pictures, {held_out.sum()} held out, {target.stat().st_size} bytes")
