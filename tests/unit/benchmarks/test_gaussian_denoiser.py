"""The Gaussian floor of the diffusion case against the formula written out, and against its own shrinkage."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cases.diffusion.gaussian import Asked, GaussianDenoiser, gaussian_floor


def pictures(count: int, seed: int, width: int = 6) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.normal(size=(count, width)) @ np.random.default_rng(9).normal(size=(width, width)) + 1


def asked(count: int, seed: int, width: int = 6) -> Asked:
    random = np.random.default_rng(100 + seed)
    return Asked(
        pictures(count, seed, width),
        random.normal(size=(count, width)),
        random.choice([0.05, 0.5, 0.95], count),
        random.integers(0, 2, count),
    )


@pytest.mark.parametrize("count", [4, 200], ids=["fewer pictures than pixels", "more"])
@pytest.mark.parametrize("shrinkage", [0.0, 0.2])
def test_it_is_the_matrix_formula(count: int, shrinkage: float) -> None:
    given, questions = pictures(count, 0), asked(20, 1)
    covariance = np.cov(given, rowvar=False)
    covariance = (1 - shrinkage) * covariance + shrinkage * np.trace(covariance) / 6 * np.eye(6)
    wanted = []
    for clean, noise, kept in zip(questions.clean, questions.noise, questions.signal, strict=True):
        noisy = np.sqrt(kept) * clean + np.sqrt(1 - kept) * noise
        inside = kept * covariance + (1 - kept) * np.eye(6)
        predicted = np.sqrt(1 - kept) * np.linalg.solve(inside, noisy - np.sqrt(kept) * given.mean(0))
        wanted.append(((predicted - noise) ** 2).mean())
    assert GaussianDenoiser(given).losses(questions, shrinkage) == pytest.approx(np.array(wanted), rel=1e-8)


def test_classes_help_where_they_differ_and_the_shrinkage_comes_from_validation() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 2, 300)
    shifted = pictures(300, 0) + 20 * codes[:, None]
    validation, test = asked(60, 1), asked(60, 2)
    moved = [
        Asked(part.clean + 20 * part.codes[:, None], part.noise, part.signal, part.codes) for part in (validation, test)
    ]
    apart = gaussian_floor(shifted, codes, *moved)
    together = gaussian_floor(shifted, np.zeros_like(codes), *moved)
    assert 0 < apart < together < 1
    unlabelled = gaussian_floor(shifted, np.full_like(codes, -1), *moved)
    assert unlabelled == pytest.approx(GaussianDenoiser(shifted).losses(moved[1], 0.0).mean(), rel=0.05)
    assert unlabelled > apart
