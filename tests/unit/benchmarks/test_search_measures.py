"""Loads, cold starts, filters, updates, fewer dimensions, the advice and the page of the search benchmark."""

from __future__ import annotations

import shlex
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from benchmarks.commands.index import main
from benchmarks.options import parse_dataclass
from benchmarks.search.advice import command_of, sentence, setting_of, target
from benchmarks.search.changes import SHARES, exact_index, filtered, updated
from benchmarks.search.cold import cold
from benchmarks.search.data import SearchData, generate
from benchmarks.search.loads import BATCHES, CLIENTS, Load, loads, measured
from benchmarks.search.options import Options
from benchmarks.search.page import search_page
from benchmarks.search.plans import Plan, default_plans, parse_plan, with_options
from benchmarks.search.quality import exact_truth
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json
from mt2st.index import VectorIndex, create_index
from mt2st.index._base import Flags, Floats, Ints
from mt2st.index.exact import Index as Exact


@pytest.fixture(scope="module")
def data() -> SearchData:
    return generate("clustered", 400, 8, 30, seed=0)


class Watched(VectorIndex):
    """An index that notes how many queries it was asked at once, and by how many threads."""

    backend = "watched"
    search_knobs = {"threads": 64}  # noqa: RUF012

    def __init__(self, threads: int = 2) -> None:
        super().__init__()
        self.threads, self.batches, self.seen = threads, [], set()
        self.asked_with: list[int] = []
        self.inner = Exact()

    @property
    def index_bytes(self) -> int:
        return 1

    def _add(self, rows: Floats) -> None:
        self.inner.add(rows)

    def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
        self.batches.append(len(rows))
        self.asked_with.append(self.threads)
        self.seen.add(threading.get_ident())
        return self.inner.search(rows, k, allowed)

    def write(self, path: Path) -> None:
        self.inner.write(path)

    def read(self, path: Path) -> None:
        self.inner.read(path)


def test_loads_cover_batches_threads_and_clients(data: SearchData) -> None:
    found = loads(8, has_threads=True)
    assert {(load.batch, load.threads) for load in found if load.clients == 1} == {
        (batch, threads) for batch in BATCHES for threads in (1, 8)
    }
    assert [load.clients for load in found if load.clients > 1] == list(CLIENTS)
    assert all(load.batch == 1 and load.threads == 1 for load in found if load.clients > 1)
    assert {load.threads for load in loads(8, has_threads=False)} == {8}
    index = Watched()
    index.add(data.gallery)
    for load, batch in ((Load(1, 1), 1), (Load(16, 1), 16), (Load(0, 2), 30), (Load(1, 1, clients=4), 1)):
        index.batches.clear()
        index.asked_with.clear()
        index.seen.clear()
        cost, times = measured(index, data.queries, 5, load, calls=8, seconds=60)
        assert index.batches == [batch] * 8
        assert set(index.asked_with) == {load.threads}
        assert cost["calls"] == len(times) == 8
        assert (threading.get_ident() in index.seen) == (load.clients == 1)
        assert cost["p50_seconds"] == pytest.approx(np.percentile(times, 50))
        assert cost["p99_seconds"] == pytest.approx(np.percentile(times, 99))
    cost, times = measured(index, data.queries, 5, Load(1, 1), calls=1000, seconds=0)
    assert len(times) == 3, "cut short, but not below three calls"


def test_an_error_of_a_client_is_not_lost(data: SearchData) -> None:
    index = Watched()
    index.add(data.gallery)
    index.inner = None  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        measured(index, data.queries, 5, Load(1, 1, clients=4), calls=8, seconds=60)


def test_cold_start_in_a_new_process(data: SearchData, tmp_path: Path) -> None:
    index = create_index("exact?threads=1")
    index.add(data.gallery)
    found = cold(index, data.queries, 5, tmp_path)
    assert found["disk_bytes"] > 400 * 8 * 4
    assert min(found["load_seconds"], found["first_query_seconds"], found["warm_query_seconds"]) > 0
    assert not list(tmp_path.iterdir())


def test_filters_are_judged_among_the_allowed(data: SearchData) -> None:
    exact = exact_index(data)
    index = create_index("exact")
    index.add(data.gallery)
    found = filtered(index, data, data, exact, 3, seed=0, queries=10)
    assert [row["share"] for row in found] == list(SHARES)
    assert all(row["ann_recall@3"] == 1 for row in found)

    class Deaf(Watched):
        def _search(self, rows: Floats, k: int, allowed: Flags | None) -> tuple[Floats, Ints]:
            return super()._search(rows, k, None)

    deaf = Deaf()
    deaf.add(data.gallery)
    with pytest.raises(Mt2stError, match="returned items that the filter does not allow"):
        filtered(deaf, data, data, exact, 3, seed=0, queries=10)


def test_updates_replace_a_tenth_and_are_judged_by_content(data: SearchData) -> None:
    truth = exact_truth(data, 3)
    index = create_index("exact")
    index.add(data.gallery)
    found = updated(index, data, data, truth, 3, seed=0, queries=10)
    assert found["replaced_items"] == 40
    assert found["ann_recall_tolerant@3_before"] == found["ann_recall_tolerant@3_after"] == 1
    assert len(index) == 400
    assert index.ids_given == 440

    class Clinging(Watched):
        removes = True  # and does not

    clinging = Clinging()
    clinging.add(data.gallery)
    with pytest.raises(Mt2stError, match="returned items that were removed"):
        updated(clinging, data, data, truth, 3, seed=0, queries=30)


def test_plans_with_dimensions_options_and_other_axes() -> None:
    plan = parse_plan("faiss_cpu:IVF4,Flat?nprobe=1,2&dimensions=32")
    assert plan == Plan("faiss_cpu:IVF4,Flat", "nprobe", (1, 2), 32)
    for wrong in ("exact?dimensions=0", "exact?dimensions=x", "exact?dimensions=1,2"):
        with pytest.raises(Mt2stError, match="dimensions must be a whole number"):
            parse_plan(wrong)
    options = ("uri=http://host:19530", "seed=3")
    assert with_options(Plan("milvus:HNSW"), options).spec == "milvus:HNSW?uri=http://host:19530"
    assert with_options(Plan("exact"), options).spec == "exact"
    assert with_options(Plan("hnswlib?seed=1"), options).spec == "hnswlib?seed=1"
    assert with_options(Plan("hnswlib?links=8"), options).spec == "hnswlib?links=8&seed=3"
    specs = {plan.spec for plan in default_plans(10_000, 64, False, lambda name: True, ("effort", "precision"))}
    assert {"faiss_cpu:SQfp16", "faiss_cpu:RaBitQ,RFlat", "usearch?storage=i8&ef_search=64", "milvus:HNSW"} <= specs
    plans = default_plans(10_000, 64, False, lambda name: name != "pymilvus", ("dimension",))
    assert {plan.dimensions for plan in plans} == {0, 8, 16, 32}
    assert "faiss_cpu:PCA16,Flat" in {plan.spec for plan in plans}


def row(label: str, recall: float, speed: float, size: float, **more: object) -> dict:
    cost = {"batch_queries_per_second": speed, "index_bytes": size}
    found = {"label": label, "quality": {"ann_recall@10": recall}, "cost": cost, "spec": label, "knob": ""}
    return found | {"dimensions": 0, "parameters": {}} | more


def test_advice_heeds_recall_and_size() -> None:
    rows = [
        row("exact", 1.0, 100, 50e6),
        row("faiss_cpu:IVF8,Flat", 0.97, 900, 60e6, knob="nprobe", parameters={"nprobe": 4}),
        row("faiss_cpu:Flat", 0.96, 500, 10e6, dimensions=16),
        row("hnswlib?links=8", 0.5, 5000, 10e6, knob="ef_search", parameters={"ef_search": 16}),
    ]
    options = Options(data="a b.npy", num_queries=5)
    found = target(rows, options, "a b.npy")
    assert found["setting"] == "faiss_cpu:IVF8,Flat?nprobe=4"
    words = shlex.split(found["command"])
    assert words[:6] == ["python", "-m", "benchmarks", "index", "--data", "a b.npy"]
    assert words[6:] == ["--num-queries", "5", "--settings", "faiss_cpu:IVF8,Flat?nprobe=4"]
    small = target(rows, replace(options, memory_mb=20.0), "x")
    assert small["fastest"] == "faiss_cpu:Flat"
    assert small["command"].endswith("'faiss_cpu:Flat?dimensions=16'")
    assert "and at most 20 MB: faiss_cpu:Flat in time" in sentence(small)
    none = target(rows, replace(options, memory_mb=1.0), "x")
    assert sentence(none) == "No setting reaches a recall of 95% within 1 MB."
    assert none["command"] is None
    assert setting_of(rows[3]) == "hnswlib?links=8&ef_search=16"
    assert "--settings 'hnswlib?links=8&ef_search=16'" in command_of(rows[3], options, "x")


def test_a_run_of_all_parts_and_its_page(tmp_path: Path) -> None:
    arguments = ["--data", "generated", "--smoke", "--items", "500", "--width", "8", "--num-queries", "40"]
    arguments += ["--repetitions", "1", "--single-queries", "4", "--seconds", "0.2", "--parts", "loads", "filters"]
    settings = ["exact", "faiss_cpu:IVF8,Flat?nprobe=1,8", "exact?dimensions=4"]
    assert main([*arguments, "updates", "--settings", *settings, "--results", str(tmp_path)]) == 0
    (folder,) = (tmp_path / "index" / "clustered-500x8").iterdir()
    record = read_sealed_json(folder / "run.json", "")
    labels = [each["label"] for each in record["settings"]]
    assert labels == ["exact", "IVF8,Flat nprobe=1", "IVF8,Flat nprobe=8", "exact first 4"]
    raw = load_file(folder / "repetitions.safetensors")
    for number, each in enumerate(record["settings"]):
        for place, load in enumerate(each["loads"]):
            times = raw[f"{number}/load/{place}"]
            assert load["p95_seconds"] == pytest.approx(np.percentile(times, 95))
        assert len(each["loads"]) >= 5
        assert bool(each["more"]) == (each["label"] != "IVF8,Flat nprobe=1"), "once an index, with its last setting"
    assert record["settings"][0]["more"]["updates"]["ann_recall_tolerant@10_after"] == 1
    assert record["settings"][3]["quality"]["ann_recall@10"] < 1, "judged by all dimensions"
    page = (folder / "index.html").read_text()
    for words in ("Pareto front", "Recall against speed in batches", "Filters:", "Updates:", "How to reproduce"):
        assert words in page
    assert record["target"]["command"].replace("'", "&#x27;") in page
    assert "Quality against training FLOPs" not in page
    command = shlex.split(record["target"]["command"])[4:]
    copied = parse_dataclass(Options(), command, prog="index")
    assert (copied.data, copied.items, copied.width, copied.num_queries) == ("generated", 500, 8, 40)
    assert parse_plan(*copied.settings).spec.partition("?")[0] in ("exact", "faiss_cpu:IVF8,Flat")
    assert search_page(record).reproduce[-1][1].startswith("python -m benchmarks index --data generated --items 500")
