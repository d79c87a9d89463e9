"""The engine `edge`: recall of its graph, its lock, kills, and damage that Qdrant itself does not notice."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rasr.errors import RasrError
from rasr.retrieval import Payload, ReferenceIndex
from tests.helpers import REPOSITORY
from tests.retrieval.conftest import create, fill, unit_vectors

DIM, COUNT = 512, 5000  # 5 MB in float16: below 4 MB no graph is built


@pytest.fixture(scope="module")
def clustered() -> np.ndarray:
    """Photographs come in groups: 250 of them, 20 images each, and 100 queries of the same groups."""
    centres = unit_vectors(250, dim=DIM)
    vectors = np.tile(centres, (COUNT // 250 + 1, 1))[: COUNT + 100] + 0.7 * unit_vectors(COUNT + 100, 1, DIM)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def build(path: Path, vectors: np.ndarray, **settings) -> None:
    with ReferenceIndex.create(path, DIM, "toy", "v1", **settings) as index:
        for start in range(0, len(vectors), 1000):
            ids = [str(n) for n in range(start, start + 1000)]
            index.add(
                ids, vectors[start : start + 1000], [Payload(f"{i}.png", f"c{int(i) % 2}") for i in ids]
            )
        index.optimize()


@pytest.fixture(scope="module")
def plain(tmp_path_factory, clustered) -> Path:
    """An index over `clustered`, without quantisation."""
    folder = tmp_path_factory.mktemp("edge") / "index"
    build(folder, clustered[:COUNT])
    return folder


@pytest.mark.parametrize("quantize", [False, True])
def test_recall_of_the_graph(tmp_path, plain, clustered, quantize):
    vectors, queries = clustered[:COUNT], clustered[COUNT:]
    folder = plain
    if quantize:
        folder = tmp_path / "index"
        build(folder, vectors, quantize=True)
    assert list(folder.glob("shard/segments/*/vector_index/graph.bin")), "there is a graph"
    assert bool(list(folder.glob("shard/segments/*/vector_storage/quantized.data"))) == quantize
    exact = queries @ vectors.T
    best = np.argsort(-exact, axis=1)[:, :5]
    with ReferenceIndex.open(folder) as index:
        found, scores = index.search(queries, 5)
        hits = [len(set(map(str, row)) & set(ids)) for row, ids in zip(best, found, strict=True)]
        assert np.mean(hits) / 5 >= 0.99
        for row, (ids, row_scores) in enumerate(zip(found, scores, strict=True)):
            np.testing.assert_allclose(row_scores, exact[row][[int(i) for i in ids]], atol=2e-4)
        in_category, _ = index.search(queries, 5, {"category": "c1"})
        best_odd = [[str(n) for n in np.argsort(-row) if n % 2][:5] for row in exact]
        hits = [len(set(row) & set(ids)) for row, ids in zip(best_odd, in_category, strict=True)]
        assert np.mean(hits) / 5 >= 0.9  # a filter costs some; without the graph of each category 0.05


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at the maps of Linux")
def test_quantised_copies_are_in_memory_and_the_originals_on_disk(tmp_path, clustered):
    """A mapped copy would be read from a cold disk page by page, by each query."""
    build(tmp_path / "index", clustered[:COUNT], quantize=True)
    with ReferenceIndex.open(tmp_path / "index") as index:
        index.search(clustered[COUNT:], 5)
        maps = Path("/proc/self/maps").read_text()
    mapped = {line.rpartition("/")[2] for line in maps.splitlines() if str(tmp_path / "index") in line}
    assert "matrix.dat" in mapped
    assert "quantized.data" not in mapped


def test_a_second_opener_is_told_what_to_use_and_a_killed_reader_harms_nothing(tmp_path):
    with create((tmp_path / "index", "edge")) as index:
        fill(index, tmp_path)
        index.optimize()
    code = (
        "import os; from rasr.retrieval import ReferenceIndex\n"
        f"index = ReferenceIndex.open({str(tmp_path / 'index')!r})\n"
        "print(index.count(), flush=True); input()"
    )
    command = [sys.executable, "-c", code]
    reader = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert reader.stdout.readline() == b"50\n"
    with pytest.raises(RasrError, match="another process has this index open") as error:
        ReferenceIndex.open(tmp_path / "index")
    assert "engine=flat or to a Qdrant server" in str(error.value)
    reader.kill()
    reader.communicate()
    with ReferenceIndex.open(tmp_path / "index") as index:
        index.check_storage()


@pytest.mark.parametrize("change", ["cut", "zeroed", "missing"])
@pytest.mark.parametrize("name", ["matrix.dat", "id_tracker.mappings", "page_0.dat", "segment.json"])
def test_damage_is_found_at_open(damageable, name, change):
    """Qdrant opens most of these: without its vectors it finds nothing, without its names anything."""
    folder, originals = damageable
    file = next(file for file in originals if file.name == name)
    content = originals[file]
    if change == "missing":
        file.unlink()
    else:
        file.write_bytes(bytes(len(content)) if change == "zeroed" else content[: len(content) // 2])
    with pytest.raises(RasrError, match=rf"damaged \(.*{name}.*build it again"):
        ReferenceIndex.open(folder)
    file.write_bytes(content)
    ReferenceIndex.open(folder).close()


@pytest.fixture(scope="module")
def damageable(plain):
    names = ("matrix.dat", "id_tracker.mappings", "page_0.dat", "segment.json")
    segment = next(plain.glob("shard/segments/*/vector_index/graph.bin")).parent.parent
    return plain, {file: file.read_bytes() for name in names for file in segment.rglob(name)}


def test_a_changed_byte_is_found_by_check_storage(damageable):
    folder, originals = damageable
    file = next(file for file in originals if file.name == "matrix.dat")
    content = bytearray(originals[file])
    content[5000] ^= 1  # in none of the blocks that are read at open
    file.write_bytes(content)
    with (
        ReferenceIndex.open(folder) as index,
        pytest.raises(RasrError, match=r"damaged \(.*matrix\.dat"),
    ):
        index.check_storage()
    file.write_bytes(originals[file])


def test_a_lost_shard_is_damage(tmp_path):
    with create((tmp_path / "index", "edge")) as index:
        fill(index, tmp_path)
    (tmp_path / "index" / "shard").rename(tmp_path / "shard")
    with pytest.raises(RasrError, match="damaged"):
        ReferenceIndex.open(tmp_path / "index")
    meta = tmp_path / "index" / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"state": "writing", "files": {}}))
    with pytest.raises(RasrError, match="its folder shard is missing"):
        ReferenceIndex.open(tmp_path / "index", allow_unfinished=True)
