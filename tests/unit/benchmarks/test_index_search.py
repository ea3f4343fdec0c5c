"""The search benchmark: its own measures against slow twins, its sources of data, and one whole run."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from benchmarks.commands.index import main
from benchmarks.search import data as search_data
from benchmarks.search.data import SearchData, available_bytes, generate, load
from benchmarks.search.plans import Plan, default_plans, parse_plan
from benchmarks.search.quality import ann_recall, exact_truth, similarities, tolerant_recall
from benchmarks.search.report import cheapest, index_bytes, pareto, seconds_a_query
from mt2st.errors import Mt2stError
from mt2st.files import read_sealed_json
from mt2st.index import create_index


def some_data(num_items: int = 50, num_queries: int = 20, width: int = 8) -> SearchData:
    return generate("clustered", num_items, width, num_queries, seed=0)


def test_set_recall_equals_the_slow_twin() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        found, truth = (np.array([rng.permutation(12)[:4] for _ in range(6)]) for _ in range(2))
        found[rng.random(found.shape) < 0.2] = -1
        twin = np.mean([len((set(ours) - {-1}) & set(theirs)) / 4 for ours, theirs in zip(found, truth)])
        assert ann_recall(found, truth) == pytest.approx(twin)
    assert ann_recall(truth, truth) == 1.0
    assert ann_recall(np.full_like(truth, -1), truth) == 0.0


def test_tolerant_recall_forgives_ties_only() -> None:
    truth = np.array([[0.9, 0.8]])
    assert tolerant_recall(np.array([[0.9, 0.8]]), truth, 0.0) == 1.0
    assert tolerant_recall(np.array([[0.9, 0.79]]), truth, 0.0) == 0.5
    assert tolerant_recall(np.array([[0.9, 0.79]]), truth, 0.02) == 1.0
    assert tolerant_recall(np.array([[0.9, -np.inf]]), truth, 0.1) == 0.5


def test_duplicates_spoil_set_recall_but_not_the_tolerant_one() -> None:
    """Ten copies of one item: which of them come back is a matter of taste."""
    gallery = np.repeat(np.eye(4, dtype=np.float32), 10, axis=0)
    data = SearchData("copies", gallery, np.eye(4, dtype=np.float32), *(np.empty(0, np.int64),) * 2, {})
    truth = exact_truth(data, 5)
    others = np.array([[10 * row + place for place in range(5, 10)] for row in range(4)])
    first = np.array([[10 * row + place for place in range(5)] for row in range(4)])
    assert ann_recall(others, first) == 0.0
    assert tolerant_recall(similarities(data, others), truth.similarities, 1e-9) == 1.0


def test_similarities_are_computed_anew() -> None:
    data = some_data()
    ids = np.array([[3, -1, 7]] * 20)
    found = similarities(data, ids)
    query, item = data.queries[2].astype(float), data.gallery[7].astype(float)
    assert found[2, 2] == pytest.approx(query @ item / np.linalg.norm(query) / np.linalg.norm(item), abs=1e-12)
    assert np.isneginf(found[:, 1]).all()


def row(recall: float, per_second: float, size: float) -> dict:
    return {"quality": {"ann_recall@10": recall}, "cost": {"batch_queries_per_second": per_second, "index_bytes": size}}


def test_pareto_front_and_target() -> None:
    rows = [row(0.5, 100, 1), row(0.9, 50, 5), row(0.8, 40, 1), row(0.99, 10, 9), row(0.9, 50, 5), row(0.7, 100, 9)]
    assert pareto(rows, seconds_a_query) == [5, 1, 4, 3]
    assert pareto(rows, index_bytes) == [2, 1, 4, 3]
    assert cheapest(rows, 0.8, seconds_a_query) is rows[1]
    assert cheapest(rows, 0.8, index_bytes) is rows[2]
    assert cheapest(rows, 1.0, index_bytes) is None


def test_plans() -> None:
    assert parse_plan("faiss_cpu:IVF4,Flat?nprobe=1,2&seed=3") == Plan("faiss_cpu:IVF4,Flat?seed=3", "nprobe", (1, 2))
    assert parse_plan("faiss_cpu:IVF4,Flat?nprobe=2") == Plan("faiss_cpu:IVF4,Flat?nprobe=2")
    for wrong in ("exact?threads=1,2&device=a,b", "hnswlib?ef_search=1,x", "exact?threads"):
        with pytest.raises(Mt2stError, match=wrong.split("?")[0]):
            parse_plan(wrong)


@pytest.mark.parametrize(("num_items", "width"), [(1, 1), (10, 7), (300, 32), (10**6, 512)])
def test_default_plans_can_be_built(num_items: int, width: int) -> None:
    plans = default_plans(num_items, width, gpu=False, installed=lambda name: True)
    assert any("exact" in plan.spec for plan in plans)
    assert any("PQ" in plan.spec for plan in plans) == (num_items >= 256)
    assert not any("gpu" in plan.spec for plan in plans)
    if num_items <= 300:
        gallery = np.random.default_rng(0).standard_normal((num_items, width)).astype(np.float32)
        for plan in plans:
            if plan.spec.startswith("faiss_cpu"):
                index = create_index(plan.spec)
                index.add(gallery)
                for knobs in plan.settings():
                    if knobs:
                        index.set_search_knobs(**knobs)
                assert index.search(gallery[:1], 1)[1].shape == (1, 1)


@pytest.mark.parametrize(
    ("num_items", "width", "expected"),
    [
        (20_000, 64, ["Flat", "IVF128,Flat", "IVF128,PQ32np", "CAGRA"]),
        (10**6, 512, ["Flat", "IVF1024,Flat", "IVF1024,PQ32np", "CAGRA"]),
        (300, 768, ["Flat", "IVF16,Flat", "IVF16,PQ48np", "CAGRA"]),
        (300, 31, ["Flat", "IVF16,Flat", "CAGRA"]),
        (200, 64, ["Flat", "IVF16,Flat", "CAGRA"]),
    ],
)
def test_a_gpu_adds_every_kind_of_index_that_faiss_has_for_it(num_items: int, width: int, expected: list[str]) -> None:
    plans = default_plans(num_items, width, gpu=True, installed=lambda name: True)
    assert [plan.spec for plan in plans if "gpu" in plan.spec] == [f"faiss_gpu:{factory}" for factory in expected]
    assert all(plan.knob == "nprobe" and len(plan.values) > 1 for plan in plans if "faiss_gpu:IVF" in plan.spec)
    assert [plan for plan in plans if "gpu" not in plan.spec] == default_plans(
        num_items, width, gpu=False, installed=lambda name: True
    )
    assert not any(
        "faiss" in plan.spec
        for plan in default_plans(num_items, width, gpu=True, installed=lambda name: name != "faiss")
    )


def test_more_vectors_than_memory_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 << 20 < available_bytes() < 1 << 60
    words = r"10,000,000,000,000 items and 1,000 queries of width 64 need about 7,680,000\.\d GB.*fewer --items"
    with pytest.raises(Mt2stError, match=words) as caught:
        main(["--data", "generated", "--items", str(10**13), "--results", str(tmp_path)])
    assert "\n" not in str(caught.value)
    with pytest.raises(Mt2stError, match=r"--num-queries"):
        generate("uniform", 10, 64, 10**13, seed=0)
    monkeypatch.setattr(search_data, "available_bytes", lambda: 3 * 4 * 8 * 60)
    assert len(generate("uniform", 50, 8, 10, seed=0).gallery) == 50
    with pytest.raises(Mt2stError, match="51 items and 10 queries of width 8"):
        generate("uniform", 51, 8, 10, seed=0)


def test_auto_says_what_it_chose_where_people_look(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(tmp_path, "--settings", "exact?device=auto", "exact") == 0
    device = create_index("exact?device=auto").parameters["device"]
    assert f"[1/2] exact?device=auto (takes {device})" in capsys.readouterr().out
    (folder,) = (tmp_path / "index" / "clustered-600x8").iterdir()
    record = read_sealed_json(folder / "run.json", "")
    assert [row["label"] for row in record["settings"]] == [f"exact device={device}", "exact"]
    assert f"exact device={device}" in (folder / "TABLE.md").read_text()


@pytest.mark.parametrize("distribution", ["clustered", "gaussian", "uniform"])
def test_generated_vectors_are_what_they_say(distribution: str) -> None:
    data = generate(distribution, 500, 16, 100, seed=1)
    again = generate(distribution, 500, 16, 100, seed=1)
    np.testing.assert_array_equal(data.gallery, again.gallery)
    np.testing.assert_array_equal(data.queries, again.queries)
    assert (generate(distribution, 500, 16, 100, seed=2).gallery != data.gallery).any()
    noise = np.linalg.norm(data.queries - data.gallery[data.relevant], axis=1) / np.linalg.norm(
        data.gallery[data.relevant], axis=1
    )
    np.testing.assert_allclose(noise, 0.6, rtol=1e-3)
    assert data.gallery.min() >= 0 if distribution == "uniform" else data.gallery.min() < -1


@pytest.mark.parametrize(
    ("arguments", "words"), [(("claustered", 9, 2, 1), "clustered"), (("uniform", 1, 2, 1), "items = 1")]
)
def test_generated_bad_input(arguments: tuple, words: str) -> None:
    with pytest.raises(Mt2stError, match=words):
        generate(*arguments, seed=0)


def write_run(folder: Path, owner: np.ndarray | None = None) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    arrays = {
        "image_embeddings": rng.standard_normal((40, 8)).astype(np.float32),
        "text_embeddings": rng.standard_normal((90, 8)).astype(np.float32),
        "text_image_index": rng.integers(0, 40, 90) if owner is None else owner,
    }
    folder.mkdir(parents=True)
    save_file(arrays, folder / "embeddings.safetensors")
    return arrays


def test_reads_the_embeddings_of_a_run(tmp_path: Path) -> None:
    run = tmp_path / "results" / "retrieval" / "default" / "stl-s0"
    arrays = write_run(run)
    for source in (str(run), str(run / "embeddings.safetensors"), ""):
        data = load(source, "", "", "text_to_image", 10, 0, tmp_path / "results")
        np.testing.assert_array_equal(data.queries, arrays["text_embeddings"])
        np.testing.assert_array_equal(data.relevant, arrays["text_image_index"])
    back = load(str(run), "", "", "image_to_text", 10, 0)
    np.testing.assert_array_equal(back.gallery, arrays["text_embeddings"])
    np.testing.assert_array_equal(back.asking, arrays["text_image_index"])
    np.testing.assert_array_equal(back.relevant, np.arange(90))


def test_reads_single_matrices(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).standard_normal((30, 4))
    np.save(tmp_path / "a.npy", matrix)
    data = load(str(tmp_path / "a.npy"), "", "", "text_to_image", 5, 0)
    assert (len(data.gallery), len(data.queries), len(data.asking)) == (25, 5, 0)
    rows = np.concatenate([data.gallery, data.queries])
    np.testing.assert_array_equal(np.sort(rows[:, 0]), np.sort(matrix[:, 0]))
    np.save(tmp_path / "q.npy", matrix[:3])
    assert len(load(str(tmp_path / "a.npy"), str(tmp_path / "q.npy"), "", "text_to_image", 5, 0).gallery) == 30
    save_file({"a": matrix, "b": matrix[:9]}, tmp_path / "two.safetensors")
    assert len(load(str(tmp_path / "two.safetensors"), "", "b", "text_to_image", 5, 0).gallery) == 4


def test_sources_that_must_be_refused(tmp_path: Path) -> None:
    matrix = np.ones((30, 4))
    save_file({"a": matrix, "b": matrix}, tmp_path / "two.safetensors")
    np.save(tmp_path / "a.npy", matrix)
    np.save(tmp_path / "wide.npy", np.ones((3, 5)))
    np.save(tmp_path / "flat.npy", np.ones(30))
    np.save(tmp_path / "nan.npy", np.full((30, 4), np.nan))
    write_run(tmp_path / "run", owner=np.full(90, 40))
    cases: list[tuple[tuple, str]] = [
        ((str(tmp_path / "two.safetensors"), "", ""), "choose one with --tensor"),
        ((str(tmp_path / "two.safetensors"), "", "c"), "unknown tensor"),
        ((str(tmp_path / "a.npy"), str(tmp_path / "wide.npy"), ""), "5 wide, but 4"),
        ((str(tmp_path / "flat.npy"), "", ""), "shape"),
        ((str(tmp_path / "nan.npy"), "", ""), "NaN"),
        ((str(tmp_path / "run"), "", ""), "one of 40 images"),
        ((str(tmp_path / "none"), "", ""), "is not a file"),
        (("", "", ""), "python -m benchmarks retrieval first"),
    ]
    for arguments, words in cases:
        with pytest.raises(Mt2stError, match=words):
            load(*arguments, "text_to_image", 5, 0, tmp_path / "results")
    with pytest.raises(Mt2stError, match="did you mean 'text_to_image'"):
        load(str(tmp_path / "a.npy"), "", "", "text_to_imag", 5, 0)
    with pytest.raises(Mt2stError, match="too few to take 30"):
        load(str(tmp_path / "a.npy"), "", "", "text_to_image", 30, 0)


def run(tmp_path: Path, *arguments: str) -> int:
    small = [
        "--data",
        "generated",
        "--smoke",
        "--items",
        "600",
        "--width",
        "8",
        "--num-queries",
        "40",
        "--repetitions",
        "2",
    ]
    return main([*small, "--single-queries", "5", "--results", str(tmp_path), *arguments])


def test_a_whole_run(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    settings = ["exact", "faiss_cpu:IVF16,Flat?nprobe=1,16", "faiss_cpu:IVF6000,Flat"]
    assert run(tmp_path, "--settings", *settings) == 1, "a setting that cannot be built shows in the exit code"
    (folder,) = (tmp_path / "index" / "clustered-600x8").iterdir()
    record = read_sealed_json(folder / "run.json", "")
    assert [row["label"] for row in record["settings"]] == ["exact", "IVF16,Flat nprobe=1", "IVF16,Flat nprobe=16"]
    assert record["status"] == "finished"
    assert record["data"]["known_pairs"] == 40
    assert record["protocol"]["tolerance"] == 1e-4
    assert "6000 centroids" in record["holes"][0]["why"]
    exact, few, all_ = record["settings"]
    assert exact["quality"]["ann_recall@10"] == all_["quality"]["ann_recall@10"] == 1.0
    assert few["quality"]["ann_recall@10"] < 1.0
    assert exact["quality"]["hit_rate@10"] >= few["quality"]["hit_rate@10"] > 0.3
    raw = load_file(folder / "repetitions.safetensors")
    for number, measured in enumerate(record["settings"]):
        # Everything on the page follows from the stored repetitions.
        batch, single = raw[f"{number}/batch_seconds"], raw[f"{number}/single_seconds"]
        assert batch.shape == (2,)
        assert single.shape == (2, 5)
        cost = measured["cost"]
        assert cost["batch_queries_per_second"] == pytest.approx(40 / batch.mean())
        assert cost["single_mean_seconds"] == pytest.approx(single.mean())
        assert cost["single_p99_seconds"] == pytest.approx(np.percentile(single, 99))
        assert cost["index_bytes"] > 600 * 8 * 4 * 0.9
        assert cost["peak_resident_bytes"] >= cost["resident_before_bytes"] > 1e6
    assert record["target"]["fastest"] in ("exact", "IVF16,Flat nprobe=1", "IVF16,Flat nprobe=16")
    assert (folder / "pareto.png").read_bytes().startswith(b"\x89PNG")
    table = (folder / "TABLE.md").read_text()
    assert "IVF16,Flat nprobe=16" in table
    assert "Cheapest with a recall of at least 95%" in table
    assert "not measured" in capsys.readouterr().out


def test_two_runs_never_share_a_folder(tmp_path: Path) -> None:
    for _ in range(2):
        assert run(tmp_path, "--settings", "exact") == 0
    folders = list((tmp_path / "index" / "clustered-600x8").iterdir())
    assert len(folders) == 2
    for folder in folders:
        assert json.loads((folder / "run.json").read_text())["config"]["settings"] == ["exact"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--settings", "exat"], "none of the 1 settings"),
        (["--k", "601"], "601 is more than the 600 items"),
        (["--k", "0"], "--k = 0"),
        (["--repetitions", "0"], "--repetitions = 0"),
        (["--target-recall", "95"], "--target-recall = 95"),
        (["--tolerance", "nan"], "--tolerance = nan"),
        (["--threads", "-1"], "--threads = -1"),
        (["--distribution", "normal"], "unknown distribution"),
        (["--k", "ten"], "k"),
        (["--kk", "3"], "kk"),
    ],
)
def test_bad_options(arguments: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(Mt2stError, match=words):
        run(tmp_path, *arguments)
