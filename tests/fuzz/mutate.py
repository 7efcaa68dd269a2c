"""Mutations of good files, the same for the same seed: what runs where atheris is not installed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_BYTES = (0, 1, 0x7F, 0x80, 0xFF)
_NUMBERS = [
    (n & (1 << 8 * size) - 1).to_bytes(size, order)
    for size in (2, 4, 8)
    for order in ("little", "big")
    for n in (0, 1, -1, 2**15, 2**16, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**63)
]
_WORDS = [
    b"nan",
    b"inf",
    b"-1",
    b"1e999",
    b"9" * 40,
    b"[" * 50,
    b"{",
    b"\n",
    b"\0",
    b"../",
    b"\xff",
]


def mutations(corpus: Sequence[bytes], n: int, seed: str) -> Iterator[bytes]:
    """``n`` inputs: first the corpus itself, then changed, cut, spliced and grown ones."""
    chance = random.Random(seed)  # noqa: S311
    yield from corpus[:n]
    for _ in range(max(0, n - len(corpus))):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
            data = _mutated(data, corpus, chance)
        yield bytes(data)


def _mutated(data: bytearray, corpus: Sequence[bytes], chance: random.Random) -> bytearray:
    at = chance.randrange(len(data) + 1)
    kind = chance.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << chance.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = chance.choice(_BYTES)
    elif kind == 2:
        value = chance.choice(_NUMBERS)
        data[at : at + len(value)] = value
    elif kind == 3:
        del data[at : at + chance.choice((1, 2, 4, 16, 256))]
    elif kind == 4:
        data[at:at] = data[at : at + chance.choice((1, 2, 4, 16, 256))]
    elif kind == 5:
        other = chance.choice(corpus)
        begin = chance.randrange(len(other) + 1)
        data[at:] = other[begin:]
    elif kind == 6:
        data[at:at] = chance.choice(_WORDS)
    else:
        data[at : at + 1] = chance.randbytes(1)
    return data
