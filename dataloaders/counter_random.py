"""Random numbers as a function of a key and a counter: any position is reached at once, on any machine, in any order.

The generator is splitmix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014). numpy's Generator
streams may change between versions; an epoch's order must not.
"""

import numpy as np

_MASK = 0xFFFF_FFFF_FFFF_FFFF
_GOLDEN = 0x9E37_79B9_7F4A_7C15
_LOW = np.uint64(0xFFFF_FFFF)
_HALF = np.uint64(32)


def fold_key(*words: int) -> int:
    """One 64-bit key from several integers (each taken modulo 2^64); the order of the words matters."""
    key = 0
    for word in words:
        key = _mix_int((key ^ (word & _MASK)) + _GOLDEN)
    return key


def random_uint64(key: int, counter: np.ndarray) -> np.ndarray:
    """Uniform uint64, one for each entry of `counter` (int64 or uint64, any shape).

    For a fixed key the map is a bijection of the 64-bit integers: distinct counters never collide.
    """
    return _mix(counter.astype(np.uint64) * np.uint64(_GOLDEN) + np.uint64(key))


def random_pairs(key: int, counter: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Uniform uint64 for each (counter, second); the two broadcast against each other."""
    return _mix(random_uint64(key, counter) + second.astype(np.uint64) * np.uint64(_GOLDEN))


def below(random: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """int64 in [0, bound): the high word of the 128-bit product random * bound, 1 <= bound < 2^63; bias below bound / 2^64."""
    bound = np.asarray(bound, dtype=np.uint64)
    random_low, random_high, bound_low, bound_high = random & _LOW, random >> _HALF, bound & _LOW, bound >> _HALF
    upper = random_high * bound_low + ((random_low * bound_low) >> _HALF)
    middle = random_low * bound_high + (upper & _LOW)
    return (random_high * bound_high + (upper >> _HALF) + (middle >> _HALF)).astype(np.int64)


def permutation(key: int, size: int) -> np.ndarray:
    """int64 permutation of range(size): the order that sorts `size` distinct random numbers."""
    return np.argsort(random_uint64(key, np.arange(size, dtype=np.uint64)))


def _mix_int(value: int) -> int:
    value &= _MASK
    value = ((value ^ (value >> 30)) * 0xBF58_476D_1CE4_E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D0_49BB_1331_11EB) & _MASK
    return value ^ (value >> 31)


def _mix(value: np.ndarray) -> np.ndarray:
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return value ^ (value >> np.uint64(31))
