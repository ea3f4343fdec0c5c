"""The comparison with other people's retrieval code: equal values on equal embeddings, and lines that follow from the
records.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.speed import evaluate_worker, peers_evaluate, peers_retrieval, retrieval_worker
from mt2st.errors import Mt2stError

SIZING = {"images": 60, "texts": 200, "width": 16, "noise": 2.0, "seed": 0}


def test_our_values_are_theirs() -> None:
    pytest.importorskip("clip_benchmark")
    ours, theirs = retrieval_worker.ours(**SIZING), retrieval_worker.theirs(**SIZING, batch=7)
    lines = peers_retrieval._evaluation_lines(
        "60 × 200", {"ours": [ours], "theirs": [theirs], "product": [ours]}, judge=False
    )
    assert len(theirs["value"]) == 6
    assert lines[0].met is True
    assert 0.1 < ours["value"]["text_to_image/hit_rate@1"] < 0.9, (
        "neither trivial nor hopeless, or equality would say little"
    )


def test_a_different_value_is_missed() -> None:
    ours = {"value": {f"{way}/hit_rate@{k}": 0.5 for way in ("text_to_image", "image_to_text") for k in (1, 5, 10)}}
    theirs = {"value": {f"{way}_retrieval_recall@{k}": 0.5 for way in ("image", "text") for k in (1, 5, 10)}}
    ours |= {"seconds": 2.0, "best_of_three_seconds": 1.5, "peak_bytes": 1e6}
    theirs |= {"seconds": 24.0, "peak_bytes": 5e7}
    runs = {"ours": [ours], "theirs": [theirs], "product": [{"seconds": 0.5, "peak_bytes": 0}]}
    lines = {line.what.partition(": ")[2]: line for line in peers_retrieval._evaluation_lines("a", runs, judge=True)}
    assert lines["times faster"].met is True
    assert lines["times faster"].value == "12.0"
    assert lines["times the bare product, best of three each"].met is False
    assert lines["times less peak memory"].value == "50"
    theirs["value"]["text_retrieval_recall@5"] = 0.6
    assert peers_retrieval._evaluation_lines("a", runs, judge=False)[0].met is False


def test_embeddings_are_the_same_in_every_process() -> None:
    first, second = (retrieval_worker.embeddings(50, 120, 8, 2.0, 7) for _ in range(2))
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one, other)
    assert np.bincount(first[2]).tolist() == [3] * 20 + [2] * 30


def test_small_exact_and_faiss_measurements() -> None:
    pytest.importorskip("faiss")
    found = retrieval_worker.exact(items=300, queries=64, width=8, k=3, seconds=0.0, seed=0)
    assert found["queries_measured"] == 64
    assert found["whole_run_seconds"] == pytest.approx(found["seconds"])
    direct = retrieval_worker.faiss("IVF4,Flat", {"nprobe": 2}, items=300, queries=50, width=8, k=3, pairs=2, seed=0)
    assert direct["same_ids"]
    assert [len(seconds) for seconds in direct["seconds"].values()] == [2, 2, 2]  # ours, direct, and the control


def test_faiss_ratio_is_to_both_direct_calls() -> None:
    ratio, noise = peers_retrieval.faiss_ratios(ours=[2.0, 4.0, 9.0], direct=[1.0, 2.0, 3.0], control=[4.0, 2.0, 3.0])
    assert ratio == pytest.approx(2.0)  # of 1, 2 and 3
    assert noise == pytest.approx(1.0)  # of 4, 1 and 1


def test_a_failed_process_says_why() -> None:
    with pytest.raises(Mt2stError, match=r"measuring peak .*failed"):
        peers_retrieval.work("peak", {"size": -1})


def test_bad_options() -> None:
    for arguments, words in (
        (["--parts", "evaluaton"], "did you mean 'evaluation'"),
        (["--repetitions", "0"], "--repetitions = 0"),
    ):
        with pytest.raises(Mt2stError, match=words):
            peers_retrieval.main(arguments)


def test_evaluating_a_checkpoint_gives_their_values(tmp_path: Path) -> None:
    pytest.importorskip("clip_benchmark")
    evaluate_worker.make_inputs(tmp_path, 20, 64, 1)
    for task, metrics in (("retrieval", 6), ("zero-shot", 3)):
        runs = {who: [getattr(evaluate_worker, who)(task, tmp_path)] for who in ("ours", "theirs")}
        lines = peers_evaluate.part_lines(task, runs, judge=False)
        assert f"largest difference of {metrics} metrics" in lines[0].what
        assert lines[0].met is True
        assert 0 < next(iter(runs["theirs"][0]["metrics"].values())) < 1


def test_lines_of_evaluation_tell_quartiles_and_missed_goals() -> None:
    ours = [{"metrics": {"a": 0.5}, "seconds": 2.0, "prepare_seconds": seconds} for seconds in (0.0, 1.0, 2.0)]
    theirs = [{"metrics": {"a": 0.5}, "seconds": seconds} for seconds in (6.0, 6.0, 2.0)]
    lines = peers_evaluate.part_lines("x", {"ours": ours, "theirs": theirs}, judge=True)
    assert [line.value for line in lines[1:3]] == ["2.00 [1.25, 2.50]", "3.00 [2.00, 3.00]"]
    assert (lines[0].met, lines[1].met) == (True, True)
    slower = [{**one, "seconds": 1.0} for one in theirs]
    assert peers_evaluate.part_lines("x", {"ours": ours, "theirs": slower}, judge=True)[1].met is False
    other = [{**one, "metrics": {"a": 0.6}} for one in theirs]
    assert peers_evaluate.part_lines("x", {"ours": ours, "theirs": other}, judge=False)[0].met is False


def test_generation_is_compared_answer_by_answer(tmp_path: Path) -> None:
    evaluate_worker.make_inputs(tmp_path, 20, 64, 1)
    runs = {"ours": [evaluate_worker.ours_generating(tmp_path)], "theirs": [evaluate_worker.bare_generating(tmp_path)]}
    lines = peers_evaluate.generation_lines("x", runs, judge=False)
    assert (lines[0].value, lines[0].met) == ("20 of 20", True)
    assert len(set(runs["theirs"][0]["answers"])) > 1
    slow = {"ours": [{**runs["ours"][0], "seconds": 2.0}], "theirs": [{**runs["theirs"][0], "seconds": 1.0}]}
    assert peers_evaluate.generation_lines("x", slow, judge=True)[1].met is False
    other = {**runs, "ours": [{**runs["ours"][0], "answers": ["no"] * 20}]}
    assert peers_evaluate.generation_lines("x", other, judge=False)[0].met is False
