"""The noise of a token is a pure function of its labels: against integers in plain Python, and as a distribution."""

import math

import torch
from scipy import stats

from suite.seeds import derive, generator, gumbel_noise

BITS = 2**64


def mix(z: int) -> int:
    """splitmix64's finaliser, from the paper's constants."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % BITS
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % BITS
    return z ^ (z >> 31)


def oracle(key: int, position: int, token: int) -> float:
    row = mix((key + position * 0xD1B54A32D192ED03) % BITS)
    bits = mix((row + (token + 1) * 0x9E3779B97F4A7C15) % BITS) >> 32
    return -math.log(-math.log1p(-(bits + 0.5) / 2**32))


def test_noise_equals_the_integer_oracle() -> None:
    keys = [0, 1, -1, 2**62 + 12345, -(2**63)]
    positions = [0, 1, 7, 500, 100_000]
    noise = gumbel_noise(torch.tensor(keys), torch.tensor(positions), 40)
    expected = [[oracle(k % BITS, p, t) for t in range(40)] for k, p in zip(keys, positions, strict=True)]
    torch.testing.assert_close(noise, torch.tensor(expected, dtype=torch.float32), rtol=2e-5, atol=2e-6)


def test_a_row_does_not_depend_on_the_other_rows() -> None:
    keys, positions = torch.arange(64) * 7919, torch.arange(64)
    together = gumbel_noise(keys, positions, 100)
    alone = torch.cat([gumbel_noise(keys[i : i + 1], positions[i : i + 1], 100) for i in range(64)])
    assert torch.equal(together, alone)


def test_noise_of_a_row_is_the_same_in_every_chunk() -> None:
    """So many tokens that a CPU takes a few rows at a time."""
    keys, positions = torch.arange(40) * 7919, torch.arange(40)
    together = gumbel_noise(keys, positions, 5000)
    assert torch.equal(together.flip(0), gumbel_noise(keys.flip(0), positions.flip(0), 5000))


def test_noise_is_standard_gumbel_and_independent_between_neighbours() -> None:
    keys = torch.tensor([derive(0, "sample", step, "p", 0) for step in range(200)])
    noise = gumbel_noise(keys, torch.zeros(200, dtype=torch.int64), 500).double()
    assert stats.kstest(noise.flatten().numpy()[::5], "gumbel_r").pvalue > 1e-3
    for a, b in ((noise[:, :-1], noise[:, 1:]), (noise[:-1], noise[1:])):
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 4 / math.sqrt(a.numel())
    later = gumbel_noise(keys, torch.ones(200, dtype=torch.int64), 500).double()
    correlation = torch.corrcoef(torch.stack([noise.flatten(), later.flatten()]))[0, 1]
    assert abs(float(correlation)) < 4 / math.sqrt(noise.numel())


def test_argmax_with_noise_draws_from_the_distribution() -> None:
    probabilities = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    keys = torch.tensor([derive(3, "sample", i) for i in range(20_000)])
    drawn = (probabilities.log() + gumbel_noise(keys, torch.zeros(20_000, dtype=torch.int64), 4)).argmax(dim=1)
    counts = torch.bincount(drawn, minlength=4).numpy()
    assert stats.chisquare(counts, 20_000 * probabilities.numpy()).pvalue > 1e-3


def test_labels_cannot_be_confused() -> None:
    keys = [
        derive(0, "ab", "c"),
        derive(0, "a", "bc"),
        derive(0, "abc"),
        derive(1, "ab", "c"),
        derive(0, 1),
        derive(0, "1"),
    ]
    assert len(set(keys)) == len(keys)
    assert all(-(2**63) <= key < 2**63 for key in keys)


def test_labels_that_hold_the_separator_cannot_be_confused() -> None:
    assert derive(0, "a", "b") != derive(0, "astr:b")


def test_generators_follow_their_labels() -> None:
    labels: list[tuple[int, str]] = [(1, "a"), (1, "a"), (1, "b"), (2, "a")]
    draws = [torch.randperm(50, generator=generator(*label)).tolist() for label in labels]
    assert draws[0] == draws[1]
    assert draws[2] not in (draws[0], draws[3])
