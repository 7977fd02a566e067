"""What 29 requantised variants of one model take: as files, as chunks, in a hub, in a bundle.

    cargo build --release
    python3 -m venv target/bench && target/bench/bin/pip install blake3 gguf lz4 numpy xllamacpp
    target/bench/bin/python benches/variants.py MODEL.gguf [--folder DIR]

The blocks are made by llama.cpp's own quantisers of the model's weights, and mixed about as it mixes them: a
tensor whose rows the type does not fit gets the type that llama.cpp falls back to. What ends in `_L` has its
embeddings in F16, others in Q8_0.

What dedup allows is counted here, apart from the program: by a chunker of a few lines over the gear table of
the `gearhash` crate, and a set of hashes. Of each chunk that no file before had, its bytes are counted, and
what LZ4 makes of them, if that is less. The bundle may have that, and 8 bytes a chunk, and its lists. Needs
about a third of the room of all variants in `--folder`.
"""

import argparse
import ctypes
import functools
import json
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import blake3
import gguf
import lz4.frame
import numpy
import xllamacpp.xllamacpp
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFValueType

from bundle import pieces_of, size_of
from crowd import MIB, REPO, ROOT, Process

# What most tensors get, and what the values and `ffn_down` get: of some layers, or of all.
VARIANTS = {
    "F16": "F16", "BF16": "BF16", "Q8_0": "Q8_0", "Q8_0_L": "Q8_0", "Q6_K": "Q6_K", "Q6_K_L": "Q6_K",
    "Q5_K_M": "Q5_K some Q6_K", "Q5_K_L": "Q5_K some Q6_K", "Q5_K_S": "Q5_K", "Q5_0": "Q5_0", "Q5_1": "Q5_1",
    "Q4_K_M": "Q4_K some Q6_K", "Q4_K_L": "Q4_K some Q6_K", "Q4_K_S": "Q4_K", "Q4_0": "Q4_0", "Q4_0_L": "Q4_0",
    "Q4_1": "Q4_1", "IQ4_NL": "IQ4_NL", "IQ4_XS": "IQ4_XS", "Q3_K_L": "Q3_K all Q5_K", "Q3_K_M": "Q3_K some Q4_K",
    "Q3_K_S": "Q3_K", "Q2_K": "Q2_K all Q4_K", "Q2_K_S": "Q2_K", "IQ3_M": "IQ3_S all Q4_K", "IQ3_S": "IQ3_S",
    "IQ3_XXS": "IQ3_XXS", "TQ2_0": "TQ2_0", "TQ1_0": "TQ1_0",
}
FALLS_BACK_TO = {"Q6_K": "Q8_0", "Q5_K": "Q5_1", "Q4_K": "Q5_0", "TQ2_0": "Q4_0", "TQ1_0": "Q4_0"}
MIN_BYTES, MAX_BYTES, WINDOW, SLAB = 8192, 131072, 64, 4 * MIB
HEADER_BYTES, CORES = 8, 2


def gear_table() -> numpy.ndarray:
    """The numbers of the rolling hash, from the source of the crate."""
    told = subprocess.run(["cargo", "metadata", "--format-version", "1", "--offline"], cwd=ROOT, check=True,
                          capture_output=True).stdout
    crate = next(p for p in json.loads(told)["packages"] if p["name"] == "gearhash")
    text = Path(crate["manifest_path"]).with_name("src").joinpath("table.rs").read_text()
    return numpy.array([int(n, 16) for n in re.findall(r"0x[0-9a-f]{16}", text)], numpy.uint64)[:256]


def boundaries(content: numpy.ndarray, gear: numpy.ndarray) -> list[int]:
    """Where chunks end."""
    ends = []
    for start in range(0, len(content), SLAB):
        before = min(start, WINDOW)
        hashes = gear[content[start - before:start + SLAB]]
        width = 1
        while width < WINDOW:
            wider = hashes.copy()
            wider[width:] += hashes[:-width] << numpy.uint64(width)
            hashes, width = wider, 2 * width
        ends.append(numpy.flatnonzero(hashes[before:] >> numpy.uint64(48) == 0) + start + 1)
    ends, found, start = numpy.concatenate(ends), [], 0
    while start < len(content):
        at = numpy.searchsorted(ends, start + MIN_BYTES)
        end = min(start + MAX_BYTES, len(content), int(ends[at]) if at < len(ends) else len(content))
        found.append(end)
        start = end
    return found


class Chunks:
    """The chunks of all files so far."""

    def __init__(self):
        self.gear, self.seen = gear_table(), set()
        self.files = self.plain = self.packed = 0

    def add(self, path: Path) -> int:
        """Counts a file's; how many bytes of it are new."""
        content, start, before = numpy.fromfile(path, numpy.uint8), 0, self.plain
        self.files += len(content)
        for end in boundaries(content, self.gear):
            chunk = content[start:end].tobytes()
            start, name = end, blake3.blake3(chunk).digest()
            if name not in self.seen:
                self.seen.add(name)
                self.plain += len(chunk)
                self.packed += min(len(chunk), len(lz4.frame.compress(chunk, store_size=False)))
        return self.plain - before


class Model:
    """Real weights, to be quantised."""

    def __init__(self, path: Path):
        self.reader = gguf.GGUFReader(path)
        self.layers = 1 + max(int(n[1]) for t in self.reader.tensors if (n := re.match(r"blk.(\d+)", t.name)))
        self.quantiser = ctypes.CDLL(xllamacpp.xllamacpp.__file__).ggml_quantize_chunk
        self.quantiser.restype = ctypes.c_size_t
        self.threads = ThreadPoolExecutor(CORES)

    @functools.cache
    def encoded(self, at: int, kind: Kind) -> numpy.ndarray:
        """A tensor as blocks of this kind, row by row."""
        tensor = self.reader.tensors[at]
        if tensor.tensor_type == kind:
            return tensor.data
        plain = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(numpy.float32)
        if kind in (Kind.F16, Kind.BF16, Kind.F32):
            return gguf.quants.quantize(plain, kind)
        rows, width = plain.shape
        out = numpy.empty((rows, gguf.quants.quant_shape_to_byte_shape((width,), kind)[0]), numpy.uint8)

        def some_rows(first: int) -> None:
            self.quantiser(ctypes.c_int(kind), plain.ctypes.data_as(ctypes.c_void_p),
                           out.ctypes.data_as(ctypes.c_void_p), ctypes.c_int64(first * width),
                           ctypes.c_int64(min(1024, rows - first)), ctypes.c_int64(width), None)

        list(self.threads.map(some_rows, range(0, rows, 1024)))
        return out

    def kind_of(self, tensor, variant: str) -> Kind:
        """What a tensor is in a variant."""
        if len(tensor.shape) < 2:
            return tensor.tensor_type
        most, *better = VARIANTS[variant].split()
        if tensor.name in ("token_embd.weight", "output.weight"):
            name = most if most in ("F16", "BF16") else "F16" if variant.endswith("_L") else "Q8_0"
            return Kind[name]
        layer, eighth = int(re.match(r"blk.(\d+)", tensor.name)[1]), self.layers // 8
        is_some = layer < eighth or layer >= 7 * eighth or (layer - eighth) % 3 == 2
        is_better = better and re.search("attn_v|ffn_down", tensor.name) and (is_some or better[0] == "all")
        name = better[1] if is_better else most
        if tensor.shape[0] % gguf.GGML_QUANT_SIZES[Kind[name]][0]:
            name = FALLS_BACK_TO.get(name, "IQ4_NL")
        return Kind[name]

    def write(self, variant: str, path: Path) -> None:
        fields = self.reader.fields
        writer = gguf.GGUFWriter(path, fields["general.architecture"].contents())
        for field in fields.values():
            if field.name != "general.architecture" and not field.name.startswith("GGUF."):
                of = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=of)
        for at, tensor in enumerate(self.reader.tensors):
            kind = self.kind_of(tensor, variant)
            writer.add_tensor(tensor.name, self.encoded(at, kind), raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def main() -> None:
    parse = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parse.add_argument("model", type=Path)
    parse.add_argument("--folder", type=Path, default=None)
    parse.add_argument("--program", type=Path, default=ROOT / "target/release/ballast")
    options = parse.parse_args()
    program, chunks, model = options.program.resolve(), Chunks(), Model(options.model)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        work = Path(folder)
        hub = Process(program, "serve", work / "hub")
        try:
            hub.call("POST", "/api/repos/create", json.dumps({"name": "model", "type": "model"}).encode())
            for variant in VARIANTS:
                path = work / f"model-{variant}.gguf"
                model.write(variant, path)
                size, new = path.stat().st_size, chunks.add(path)
                hub.put(REPO, path.name, lambda: pieces_of(path))
                path.unlink()
                print(f"{path.name:22} {size / 1e6:6.1f} MB, {new / 1e6:6.1f} MB of it new", flush=True)
        finally:
            hub.end()
        stored, out = size_of(hub.data / "objects/hub/xorb"), work / "bundle"
        subprocess.run([program, "key", "new", work / "key.pem"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run([program, "bundle", "create", REPO, "--key", work / "key.pem", "-o", out,
                        "--data", hub.data], check=True, stdout=subprocess.DEVNULL)
        bundle = size_of(out)
    allowed = chunks.packed + HEADER_BYTES * len(chunks.seen)
    for what, size in (("files", chunks.files), ("chunks, each once", chunks.plain), ("packed by LZ4", allowed),
                       ("xorbs of the hub", stored), ("bundle", bundle)):
        print(f"{what:20} {size / 1e6:8.1f} MB, {100 * size / chunks.files:5.1f} % of the files")
    print(f"{len(chunks.seen)} chunks; the bundle has {100 * (bundle / allowed - 1):+.2f} % of what dedup allows")


if __name__ == "__main__":
    main()
