"""Test content that is the same in every run: bytes that look like weights, and checks on them."""
import hashlib
import random


def noise(seed, length):
    return random.Random(seed).randbytes(length)


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def raises(kind, call, *args, **kwargs):
    """The call must fail with this exception; returns it."""
    try:
        call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"{call.__name__} should have raised {kind}")
