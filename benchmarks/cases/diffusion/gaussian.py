"""A floor: the best denoiser of pictures that were Gaussian, in closed form."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

SHRINKAGES = (0.0, 0.01, 0.03, 0.1, 0.3)  # tried on validation
_RANK = 1e-10  # axes with a smaller share of the largest variance are rounding


@dataclass(frozen=True)
class Asked:
    """Pictures to denoise, M rows: clean [M, D], noise [M, D], ᾱ of its level [M], class [M] int64."""

    clean: np.ndarray
    noise: np.ndarray
    signal: np.ndarray
    codes: np.ndarray

    def of_class(self, code: int) -> Asked:
        """The rows of one class."""
        rows = self.codes == code
        return Asked(self.clean[rows], self.noise[rows], self.signal[rows], self.codes[rows])


class GaussianDenoiser:
    """N(μ, Σ) fitted to pictures [N, D], N ≥ 2, with Σ shrunk towards a multiple of I.

    For x_0 ~ N(μ, Σ) and x_t = √ᾱ·x_0 + √(1 − ᾱ)·ε the expected noise is
    E[ε | x_t] = √(1 − ᾱ)·(ᾱΣ + (1 − ᾱ)I)⁻¹·(x_t − √ᾱ·μ), the linear minimum-mean-square-error estimate.
    """

    def __init__(self, pictures: np.ndarray) -> None:
        self.mean = pictures.mean(0)
        centred = (pictures - self.mean).astype(np.float64) / np.sqrt(len(pictures) - 1)
        few = len(centred) < centred.shape[1]
        variance, sides = np.linalg.eigh(centred @ centred.T if few else centred.T @ centred)  # of the smaller side
        kept = variance > _RANK * variance[-1]
        self.variance = variance[kept]  # of each axis [K]
        axes = (centred.T @ sides[:, kept]) / np.sqrt(self.variance) if few else sides[:, kept]
        self.axes = axes.T  # [K, D]

    def losses(self, asked: Asked, shrinkage: float) -> np.ndarray:
        """Mean squared error [M] of the predicted noise.

        Args:
            shrinkage: λ in (1 − λ)·Σ + λ·tr(Σ)/D·I; 0 = Σ as fitted, 1 = no direction differs from another.
        """
        kept = asked.signal[:, None].astype(np.float64)  # ᾱ
        equal = shrinkage * self.variance.sum() / asked.clean.shape[1]  # variance where the pictures had none
        variance = (1 - shrinkage) * self.variance + equal
        noisy = np.sqrt(kept) * (asked.clean - self.mean) + np.sqrt(1 - kept) * asked.noise
        along = noisy @ self.axes.T  # [M, K]
        outside = noisy - along @ self.axes
        whitened = (along / (kept * variance + 1 - kept)) @ self.axes + outside / (kept * equal + 1 - kept)
        errors: np.ndarray = ((np.sqrt(1 - kept) * whitened - asked.noise) ** 2).mean(1)
        return errors


def gaussian_floor(pictures: np.ndarray, codes: np.ndarray, validation: Asked, test: Asked) -> float:
    """Mean loss on test of one Gaussian for each class [N] of pictures [N, D]; the shrinkage is chosen on validation.

    A class with fewer than two pictures takes the Gaussian of all; codes that are asked for nowhere, such as −1, leave
    that one alone.
    """
    of_all = cache(lambda: GaussianDenoiser(pictures))
    tried: dict[float, list[np.ndarray]] = {shrinkage: [] for shrinkage in SHRINKAGES}
    found: dict[float, list[np.ndarray]] = {shrinkage: [] for shrinkage in SHRINKAGES}
    for code in np.union1d(validation.codes, test.codes):
        rows = codes == code
        denoiser = GaussianDenoiser(pictures[rows]) if rows.sum() > 1 else of_all()
        for shrinkage in SHRINKAGES:
            tried[shrinkage].append(denoiser.losses(validation.of_class(int(code)), shrinkage))
            found[shrinkage].append(denoiser.losses(test.of_class(int(code)), shrinkage))
    chosen = min(SHRINKAGES, key=lambda shrinkage: float(np.concatenate(tried[shrinkage]).mean()))
    return float(np.concatenate(found[chosen]).mean())
