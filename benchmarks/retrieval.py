"""Search in the reference index beside FAISS and qdrant-client: build, open, milliseconds, recall, memory.

    python -m benchmarks.retrieval
    python -m benchmarks.retrieval --count 1000000 --quantize --engines edge,faiss-flat

Each engine runs in a process of its own, one after the other, on the same vectors and queries; recall@5 is
measured against exact search in float32. Queries come one at a time, as in `infer.py`; `first 20` is the
median right after the files left the system's cache, p50 and p95 come after `--warmup` other queries.
"anonymous" memory is what the system cannot take back; the rest of the resident memory is mapped files.

- `edge`, `flat`   ours, through `ReferenceIndex`, payloads included
- `faiss-flat`, `faiss-hnsw`   IndexFlatIP; IndexHNSWFlat(32), efConstruction 100, efSearch 64
- `qdrant-local`   qdrant-client's local mode in a folder: Python, exact

The vectors are made, since nothing with a licence to share has this size: groups of 30 images each around a
centre, in a latent space of 128 dimensions whose spread falls as k^-0.5, with noise of half the spread of the
centres, mapped to 768 dimensions with a little isotropic noise, and normalised. That gives neighbours at
cosines near 0.8 and a background near 0, as embeddings of photographs do; uniform noise would be harder than
any real set. `--vectors FILE.npy` takes real ones, the last rows as queries.
"""

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from benchmarks.common import describe_machine

K, GROUP, LATENT, BLOCK = 5, 30, 128, 8192
ENGINES = ("edge", "flat", "faiss-flat", "faiss-hnsw", "qdrant-local")
COLUMNS = ("engine", "build s", "build anonymous GB", "disk GB", "open s", "open cold s")
COLUMNS += ("first 20 ms", "p50 ms", "p95 ms", "recall@5", "RSS GB", "anonymous GB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=84_991, help="vectors (84,991 is the paper's database)")
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--queries", type=int, default=300)
    parser.add_argument("--warmup", type=int, default=1000, help="queries before those that are timed")
    parser.add_argument("--vectors", type=Path, help=".npy of float vectors (N, D) instead of made ones")
    parser.add_argument("--engines", default=",".join(ENGINES), help="which, separated by commas")
    parser.add_argument("--quantize", action="store_true", help="int8 copies in edge, for millions")
    parser.add_argument("--local-count", type=int, default=20_000, help="vectors for qdrant-local (slow)")
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one by default")
    args = parser.parse_args()
    packages = ("numpy", "qdrant-edge-py", "qdrant-client", "faiss-cpu")
    print(describe_machine(packages=packages), flush=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        run(Path(name), args)


def run(folder: Path, args: argparse.Namespace) -> None:
    count, dim = write_vectors(folder, args)
    best = exact_neighbours(folder)
    np.save(folder / "best.npy", best)
    queries = np.load(folder / "queries.npy")
    vectors = np.load(folder / "vectors.npy", mmap_mode="r")
    cosines = [float(queries[n] @ vectors[best[n, 0]].astype(np.float32)) for n in range(len(queries))]
    print(
        f"{count:,} x {dim}, {len(queries)} queries, cosine of the best hit: median {np.median(cosines):.2f}"
    )
    del vectors
    print("| " + " | ".join(COLUMNS) + " |\n" + "|---" * len(COLUMNS) + "|", flush=True)
    results = {}
    for engine in args.engines.split(","):
        for phase in (build, serve):
            process = multiprocessing.get_context("spawn").Process(
                target=phase, args=(engine, folder, args.quantize, args.local_count)
            )
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{engine} failed")
        results[engine] = json.loads((folder / "result.json").read_text())
        print("| " + " | ".join(str(results[engine].get(name, "")) for name in COLUMNS) + " |", flush=True)
        shutil.rmtree(folder / "index", ignore_errors=True)
    if {"edge", "faiss-hnsw"} <= results.keys():
        ours, peer = results["edge"], results["faiss-hnsw"]
        ratios = {name: round(ours[name] / peer[name], 2) for name in ("build s", "p50 ms", "p95 ms")}
        print(f"edge / faiss-hnsw: {ratios}")


def write_vectors(folder: Path, args: argparse.Namespace) -> tuple[int, int]:
    """Write vectors.npy (float16, to be read block by block) and queries.npy (float32)."""
    wanted = args.queries + args.warmup
    if args.vectors is not None:
        given = np.load(args.vectors, mmap_mode="r")
        count, dim = min(args.count, len(given) - wanted), given.shape[1]
        blocks = (given[n : min(n + BLOCK, count)].astype(np.float32) for n in range(0, count, BLOCK))
        queries = normalise(given[-wanted:].astype(np.float32))
    else:
        count, dim = args.count, args.dim
        make = maker(count, dim)
        blocks = (make(min(BLOCK, count - n)) for n in range(0, count, BLOCK))
        queries = make(wanted)
    np.save(folder / "warmup.npy", queries[: args.warmup])
    np.save(folder / "queries.npy", queries[args.warmup :])
    target = np.lib.format.open_memmap(folder / "vectors.npy", "w+", np.float16, (count, dim))
    start = 0
    for block in blocks:
        target[start : start + len(block)] = normalise(block)
        start += len(block)
    target.flush()
    return count, dim


def maker(count: int, dim: int) -> Callable[[int], np.ndarray]:
    """A source of clustered vectors; see the module's text."""
    rng = np.random.default_rng(0)
    spread = (np.arange(1, LATENT + 1, dtype=np.float32) ** -0.5)[:, None]
    basis = rng.standard_normal((LATENT, dim), dtype=np.float32) * spread
    centres = rng.standard_normal((count // GROUP + 1, LATENT), dtype=np.float32)

    def make(size: int) -> np.ndarray:
        latents = centres[rng.integers(0, len(centres), size)]
        latents = latents + 0.5 * rng.standard_normal((size, LATENT), dtype=np.float32)
        return normalise(latents @ basis + 0.15 * rng.standard_normal((size, dim), dtype=np.float32))

    return make


def normalise(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def blocks_of(folder: Path, limit: int | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """The vectors from disk, as float32 of unit length, with the number of the first of each block."""
    shape = np.load(folder / "vectors.npy", mmap_mode="r").shape
    count = shape[0] if limit is None else min(limit, shape[0])
    with (folder / "vectors.npy").open("rb") as file:  # read, not mapped: maps would count as memory
        file.seek(-2 * shape[0] * shape[1], os.SEEK_END)
        for start in range(0, count, BLOCK):
            size = min(BLOCK, count - start)
            block = np.fromfile(file, np.float16, size * shape[1]).reshape(size, shape[1])
            yield start, normalise(block.astype(np.float32))


def exact_neighbours(folder: Path, limit: int | None = None) -> np.ndarray:
    """Rows of the best K of each query, by brute force in float32."""
    queries = np.load(folder / "queries.npy")
    scores = np.full((len(queries), K), -np.inf, dtype=np.float32)
    rows = np.zeros((len(queries), K), dtype=np.int64)
    for start, block in blocks_of(folder, limit):
        new = queries @ block.T
        numbers = np.broadcast_to(np.arange(start, start + len(block)), new.shape)
        scores, rows = np.concatenate([scores, new], axis=1), np.concatenate([rows, numbers], axis=1)
        order = np.argsort(-scores, axis=1)[:, :K]
        scores, rows = np.take_along_axis(scores, order, 1), np.take_along_axis(rows, order, 1)
    return rows


def build(engine: str, folder: Path, quantize: bool, local_count: int) -> None:
    """Build and close; writes result.json. Runs in a process of its own."""
    torch.set_num_threads(os.cpu_count() or 1)
    place, name = folder / "index", engine
    watch = MemoryWatch()
    start = time.perf_counter()
    if engine == "qdrant-local":
        name = f"qdrant-local ({local_count:,})"
        build_qdrant_local(folder, place, local_count)
    elif engine.startswith("faiss"):
        build_faiss(folder, place, engine)
    else:
        name = f"{engine} int8" if quantize and engine == "edge" else engine
        build_ours(folder, place, engine, quantize and engine == "edge")
    result = {"engine": name, "build s": round(time.perf_counter() - start, 1)}
    result["build anonymous GB"] = round(watch.highest, 2)
    result["disk GB"] = round(disk_gigabytes(place), 2)
    (folder / "result.json").write_text(json.dumps(result))


def serve(engine: str, folder: Path, quantize: bool, local_count: int) -> None:
    """Open and search; completes result.json. Runs in a process of its own."""
    torch.set_num_threads(os.cpu_count() or 1)
    result = json.loads((folder / "result.json").read_text())
    place = folder / "index"
    best = exact_neighbours(folder, local_count) if engine == "qdrant-local" else np.load(folder / "best.npy")
    queries = np.load(folder / "queries.npy")
    openers = {"qdrant-local": open_qdrant_local, "faiss-flat": open_faiss, "faiss-hnsw": open_faiss}
    opener = openers.get(engine, open_ours)
    opener(place)[1]()  # imports
    for key in ("open cold s", "open s"):
        if "cold" in key:
            drop_cache(place)
        start = time.perf_counter()
        search, close = opener(place)
        result[key] = round(time.perf_counter() - start, 3)
        if "cold" in key:
            close()
            del search
    warmup = np.load(folder / "warmup.npy")[: 50 if engine == "qdrant-local" else None]
    result["first 20 ms"] = round(float(np.median(timed(search, warmup)[1][:20])), 2)
    found, times = timed(search, queries)
    hits = [len(set(rows) & set(truth.tolist())) for rows, truth in zip(found, best, strict=True)]
    result["p50 ms"], result["p95 ms"] = (round(float(np.percentile(times, p)), 2) for p in (50, 95))
    result["recall@5"] = round(sum(hits) / best.size, 4)
    result |= memory()
    close()
    (folder / "result.json").write_text(json.dumps(result))


def timed(search: Callable, queries: np.ndarray) -> tuple[list[list[int]], list[float]]:
    """What each query finds, and its milliseconds."""
    found, times = [], []
    for query in queries:
        start = time.perf_counter()
        found.append(search(query))
        times.append(1e3 * (time.perf_counter() - start))
    return found, times


def build_ours(folder: Path, place: Path, engine: str, quantize: bool) -> None:
    from rasr.retrieval import Payload, ReferenceIndex

    dim = np.load(folder / "queries.npy", mmap_mode="r").shape[1]
    with ReferenceIndex.create(place, dim, "made", "1", engine=engine, quantize=quantize) as index:
        for start, block in blocks_of(folder):
            for n in range(0, len(block), 1024):
                part = block[n : n + 1024]
                ids = [str(start + n + i) for i in range(len(part))]
                payloads = [
                    Payload(f"photos/{i}.jpg", f"c{int(i) % 30}", "a photo", (768, 768), f"{int(i):064x}")
                    for i in ids
                ]
                index.add(ids, part, payloads)
        index.optimize()


def open_ours(place: Path) -> tuple[Callable, Callable]:
    from rasr.retrieval import ReferenceIndex

    index = ReferenceIndex.open(place)
    return lambda query: [int(i) for i in index.search(query[None], K)[0][0]], index.close


def build_faiss(folder: Path, place: Path, engine: str) -> None:
    import faiss

    dim = np.load(folder / "queries.npy", mmap_mode="r").shape[1]
    index = faiss.IndexFlatIP(dim)
    if engine == "faiss-hnsw":
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 100, 64
    for _, block in blocks_of(folder):
        index.add(block)
    place.mkdir()
    faiss.write_index(index, str(place / "index.faiss"))


def open_faiss(place: Path) -> tuple[Callable, Callable]:
    import faiss

    index = faiss.read_index(str(place / "index.faiss"))
    return lambda query: index.search(query[None], K)[1][0].tolist(), lambda: None


def build_qdrant_local(folder: Path, place: Path, count: int) -> None:
    from qdrant_client import QdrantClient, models

    dim = np.load(folder / "queries.npy", mmap_mode="r").shape[1]
    client = QdrantClient(path=str(place))
    client.create_collection("c", models.VectorParams(size=dim, distance=models.Distance.COSINE))
    for start, block in blocks_of(folder, count):
        ids = list(range(start, start + len(block)))
        client.upsert("c", models.Batch(ids=ids, vectors=block.tolist()))
    client.close()


def open_qdrant_local(place: Path) -> tuple[Callable, Callable]:
    from qdrant_client import QdrantClient

    client = QdrantClient(path=str(place))

    def search(query: np.ndarray) -> list[int]:
        return [point.id for point in client.query_points("c", query.tolist(), limit=K).points]

    return search, client.close


def drop_cache(place: Path) -> None:
    """Let the system forget the files, as after a restart."""
    os.sync()
    for file in place.rglob("*"):
        if file.is_file() and hasattr(os, "posix_fadvise"):
            with file.open("rb") as stream:
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def disk_gigabytes(place: Path) -> float:
    return sum(512 * file.stat().st_blocks for file in place.rglob("*") if file.is_file()) / 1e9


def memory() -> dict[str, float]:
    """Resident memory of this process: all of it, and what is not a mapped file."""
    lines = [line.split() for line in Path("/proc/self/status").read_text().splitlines()]
    kilobytes = {line[0]: int(line[1]) for line in lines if line[0] in ("VmRSS:", "RssAnon:")}
    return {
        "RSS GB": round(kilobytes["VmRSS:"] / 1e6, 2),
        "anonymous GB": round(kilobytes["RssAnon:"] / 1e6, 2),
    }


class MemoryWatch:
    """Looks at the anonymous memory of this process twice a second."""

    def __init__(self) -> None:
        self.highest = 0.0
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.highest = max(self.highest, memory()["anonymous GB"])
            time.sleep(0.5)


if __name__ == "__main__":
    main()
