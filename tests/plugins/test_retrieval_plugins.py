"""An encoder is one class and one yaml, an engine one class; here they lie outside the package."""

import json
import sys

import pytest
import torch

from rasr.errors import RasrError
from rasr.image_io import write_png
from rasr.retrieval import ReferenceIndex
from rasr.retrieval.encoders.registry import ENCODERS
from tests.helpers import run_entry

MODULE = '''
import json
from pathlib import Path

import numpy as np
import torch

from rasr.retrieval import ImageEncoder, Payload
from rasr.retrieval.encoders.base import digest
from rasr.retrieval.encoders.registry import register_encoder
from rasr.retrieval.engines.folder import FolderIndex
from rasr.retrieval.engines.registry import register_engine


@register_encoder
class MeanColourEncoder(ImageEncoder):
    kind = "mean_colour"

    def __init__(self, *, power=1.0):
        self.name, self.dim = "mean_colour", 3
        self.settings = {"kind": self.kind, "power": power}
        self.version = digest("1", str(power))
        self.power = power

    def encode(self, images):
        colours = torch.stack([image.mean((1, 2)) + 1e-3 for image in images]) ** self.power
        return torch.nn.functional.normalize(colours, dim=1)


@register_engine
class JsonIndex(FolderIndex):
    """All of it in one JSON file."""

    engine_name = "json"
    PARTS = ("all.json",)

    def _make_storage(self):
        self._all, self._is_writer = {}, False
        self._save()

    def _load_storage(self):
        self._all, self._is_writer = json.loads((self.path / "all.json").read_text()), False

    def _save(self):
        (self.path / "all.json").write_text(json.dumps(self._all))

    def _begin_writing(self):
        self._is_writer = True
        if self._meta.state != "writing":
            self._update_meta(state="writing", files={})

    def _is_open(self):
        return self._is_writer

    def _release(self):
        self._is_writer = False

    def count(self):
        return len(self._all)

    def optimize(self):
        pass

    def vectors(self, ids):
        return np.array([self._all[i]["vector"] for i in ids], dtype=np.float32).reshape(-1, self.dim)

    def _known(self, ids):
        return [i for i in ids if i in self._all]

    def _add(self, ids, vectors, payloads):
        for i, vector, payload in zip(ids, vectors, payloads):
            self._all[i] = {"vector": vector.tolist(), "payload": payload.to_dict()}
        self._save()

    def _delete(self, ids):
        for i in ids:
            del self._all[i]
        self._save()

    def _search(self, vectors, k, filter):
        wanted = filter.get("category")
        ids = [i for i in self._all if wanted in (None, self._all[i]["payload"]["category"])]
        scores = vectors @ self.vectors(ids).T
        return [sorted(zip(ids, map(float, row)), key=lambda hit: -hit[1])[:k] for row in scores]

    def _payloads(self, ids):
        return [Payload.from_dict(self._all[i]["payload"]) for i in ids]

    def _entries(self):
        return ((i, Payload.from_dict(self._all[i]["payload"])) for i in self._all)

    def _categories(self):
        names = [entry["payload"]["category"] for entry in self._all.values()]
        return {name: names.count(name) for name in names}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Red, green and blue pictures; `colours.py` and `conf/encoder/mean_colour.yaml` of the user's own."""
    (tmp_path / "colours.py").write_text(MODULE)
    (tmp_path / "conf" / "encoder").mkdir(parents=True)
    (tmp_path / "conf" / "encoder" / "mean_colour.yaml").write_text(
        "_target_: colours.MeanColourEncoder\npower: 2.0\n"
    )
    for channel, name in enumerate(("red", "green", "blue")):
        image = torch.full((3, 40, 40), 0.1)
        image[channel] = 0.9
        write_png(image, tmp_path / "database" / f"{name}.png")
        write_png(image[:, :20, :20] * 0.8, tmp_path / "queries" / f"{name}.png")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("RASR_PLUGINS", "colours")
    monkeypatch.setattr("rasr.retrieval.encoders.registry.ENCODERS", dict(ENCODERS))
    monkeypatch.setattr("rasr.retrieval.engines.registry._REGISTERED", {})
    monkeypatch.setitem(sys.modules, "colours", None)
    monkeypatch.delitem(sys.modules, "colours")
    return tmp_path


def run(folder, *keys):
    return run_entry("index.py", *keys, cwd=folder)


def build(folder):
    keys = ("database=database", "index=index", "encoder=mean_colour", "engine=json")
    done = run(folder, *keys, f"hydra.searchpath=[file://{folder}/conf]")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_they_build_search_and_reload(folder):
    assert "3 embedded" in build(folder)
    assert "0 embedded" in build(folder)
    assert run(folder, "verify", "index=index").returncode == 0
    # The encoder is made again from what the index says of it.
    keys = ("neighbours", "index=index", "input=queries", "output=found.parquet", "references=1")
    done = run(folder, *keys)
    assert done.returncode == 0, done.stderr
    from pyarrow import parquet

    rows = parquet.read_table(folder / "found.parquet").to_pylist()
    assert [(row["image"].split("/")[-1], row["reference"].split("/")[-1]) for row in rows] == [
        (name, name) for name in ("blue.png", "green.png", "red.png")
    ]
    (folder / "database" / "red.png").unlink()
    assert "1 removed" in build(folder)
    assert run(folder, "copy", "index=index", "output=copied", "engine=flat").returncode == 0
    with ReferenceIndex.open(folder / "copied") as index:
        assert index.ids == ["blue.png", "green.png"] and index.encoder_settings["power"] == 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"engine": "os.system"},
        {"engine": "colours.JsonIndex"},
        {"engine": ["json"]},
        {"encoder": {"name": "x", "version": "1", "settings": {"kind": "colours.MeanColourEncoder"}}},
        {"encoder": {"name": "x", "version": "1", "settings": {"_target_": "os.system", "command": "id"}}},
        {"encoder": {"name": "x", "version": "1", "settings": {"kind": "mean_colour", "command": "id"}}},
    ],
)
def test_an_index_from_a_stranger_names_only_what_is_registered(folder, change):
    build(folder)
    meta = json.loads((folder / "index" / "meta.json").read_text())
    (folder / "index" / "meta.json").write_text(json.dumps(meta | change))
    keys = ("neighbours", "index=index", "input=queries", "output=found.parquet", "references=1")
    done = run(folder, *keys)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Traceback" not in done.stderr
    assert not (folder / "found.parquet").exists()


def test_without_the_plugin_one_line_says_where_it_comes_from(folder, monkeypatch):
    build(folder)
    monkeypatch.setattr("rasr.retrieval.engines.registry._REGISTERED", {})
    with pytest.raises(RasrError, match="RASR_PLUGINS"):
        ReferenceIndex.open(folder / "index")
