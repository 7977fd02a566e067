"""Weights of every kind, made without the frameworks that read them: good ones and bad ones.

weights.py FOLDER: writes good/ and bad/ below the folder.
"""

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from pathlib import Path


def module(name):
    made = types.ModuleType(name)
    sys.modules[name] = made
    return made


torch = module("torch")
torch_utils = module("torch._utils")
torch._utils = torch_utils


class FloatStorage:
    pass


def _rebuild_tensor_v2(*_):
    pass


for place, thing in [(torch, FloatStorage), (torch_utils, _rebuild_tensor_v2)]:
    thing.__module__ = place.__name__
    setattr(place, thing.__name__, thing)


class Storage:
    def __init__(self, key, count):
        self.key, self.count = key, count


class Tensor:
    def __init__(self, storage, rows, columns):
        self.storage, self.shape = storage, (rows, columns)

    def __reduce_ex__(self, protocol):
        stride = (self.shape[1], 1)
        hooks = collections.OrderedDict()
        return _rebuild_tensor_v2, (self.storage, 0, self.shape, stride, False, hooks)


def state_dict(more=None):
    state = collections.OrderedDict(a=Tensor(Storage("0", 6), 2, 3), b=Tensor(Storage("1", 4), 2, 2))
    if more is not None:
        state["more"] = more
    return state


def dumped(thing, view=()):
    class Pickler(pickle.Pickler):
        def persistent_id(self, found):
            if isinstance(found, Storage):
                return ("storage", FloatStorage, found.key, "cpu", found.count, *view)

    out = io.BytesIO()
    Pickler(out, 2).dump(thing)
    return out.getvalue()


def floats(count):
    return struct.pack(f"<{count}f", *range(count))


def zipped(path, pickled, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", floats(6))
        archive.writestr("archive/data/1", floats(4))
        archive.writestr("archive/version", "3\n")


def legacy(state):
    sizes = dict(short=2, int=4, long=4)
    about = dict(protocol_version=1001, little_endian=True, type_sizes=sizes)
    heads = [pickle.dumps(head, 2) for head in (0x1950A86A20F9469CFC6C, 1001, about)]
    tail = b"".join(struct.pack("<q", count) + floats(count) for count in (6, 4))
    return b"".join([*heads, dumped(state, (None,)), pickle.dumps(["0", "1"], 2), tail])


class Harm:
    def __reduce__(self):
        import os

        return os.system, ("echo harm",)


def array(element):
    header = f"{{'descr': '{element}', 'fortran_order': False, 'shape': (2,), }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()


def main(folder):
    good, bad = Path(folder, "good"), Path(folder, "bad")
    for made in (good, bad):
        made.mkdir()
    zipped(good / "model.pt", dumped(state_dict()))
    zipped(good / "packed.pth", dumped(state_dict()), zipfile.ZIP_DEFLATED)
    (good / "pytorch_model.bin").write_bytes(legacy(state_dict()))
    (good / "plain.npy").write_bytes(array("<f8") + struct.pack("<2d", 1, 2))
    (good / "words.pkl").write_bytes(pickle.dumps({"a": [1, 2.5, "x"]}))
    (good / "noise.bin").write_bytes(bytes(range(255, -1, -1)) * 64)
    (good / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Model\n")

    zipped(bad / "model.pt", dumped(state_dict(Harm())))
    zipped(bad / "packed.pth", dumped(state_dict(Harm())), zipfile.ZIP_DEFLATED)
    (bad / "pytorch_model.bin").write_bytes(legacy(state_dict(Harm())))
    (bad / "objects.npy").write_bytes(array("|O") + pickle.dumps([Harm(), 1]))
    for protocol in range(6):
        (bad / f"harm{protocol}.pkl").write_bytes(pickle.dumps(Harm(), protocol))
    # Whatever it is called.
    (bad / "notes.md").write_bytes(pickle.dumps(Harm(), 4))
    (bad / "weights.bin").write_bytes(pickle.dumps(Harm(), 0))


if __name__ == "__main__":
    main(sys.argv[1])
