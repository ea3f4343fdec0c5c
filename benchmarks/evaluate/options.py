"""What the evaluation of finished models can be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mt2st.errors import Mt2stError, check_range, unknown_name

TASKS = ("retrieval", "zero-shot", "probes", "vqa")
AUTO = "auto"


@dataclass(frozen=True)
class Options:
    """Measure finished models on data, without training: every model on every set, one record each."""

    model: tuple[str, ...] = ()
    """models: open_clip:NAME:TAG, open_clip:FOLDER, hf:NAME_OR_FOLDER, or the folder of a run"""
    data: tuple[str, ...] = ()
    """sets: an adapter's name, file or module, a prepared folder, or data without code (hf:NAME, a table, a toml)"""
    split: str = "test"
    """split to evaluate on"""
    train_split: str = "train"
    """split that probes learn from, and that candidate answers are counted on"""
    tasks: tuple[str, ...] = (AUTO,)
    """retrieval, zero-shot, probes, vqa; auto = what each set's card says"""
    source: str = ""
    """folder that the adapter reads, where one set is given; empty = its own default"""
    map: str = ""
    """our fields → columns of data that need no code, such as image=img,captions=text"""
    options: tuple[str, ...] = ()
    """the adapter's own options, NAME=VALUE, where one set is given"""
    templates: tuple[str, ...] = ("a photo of a {}.",)
    """prompts of zero-shot classification, {} = the class name; or one text file with a prompt a line"""
    class_names: tuple[str, ...] = ()
    """LABEL=NAME where the data's label is no good name; or one text file with LABEL=NAME a line"""
    neighbours: int = 5
    """neighbours of the k-NN probe"""
    candidates: int = 100
    """answers that a model of two towers chooses from: the most frequent ones of the training split"""
    instruction: str = "Answer with a single word or a short phrase."
    """what a generative model is told behind each question"""
    new_tokens: int = 16
    """tokens that a generative model may answer with at most"""
    limit: int = 0
    """only the first so many images of each split; 0 = all"""
    batch_size: int = 64
    """images or texts a batch"""
    workers: int = 1
    """threads that decode and transform pictures ahead; 0 = none"""
    device: str = AUTO
    """cpu, cuda, or auto = cuda where there is one"""
    threads: int = 0
    """processor threads; 0 = as many as the process may use"""
    data_folder: Path = Path("data")
    """folder for prepared data"""
    results: Path = Path("results")
    """folder for the records"""

    def __post_init__(self) -> None:
        for task in self.tasks:
            if task not in (*TASKS, AUTO):
                raise unknown_name("task", task, (*TASKS, AUTO))
        if self.device not in (AUTO, "cpu", "cuda"):
            raise unknown_name("device", self.device, (AUTO, "cpu", "cuda"))
        for name, low, high in (
            ("batch_size", 1, 1 << 16),
            ("workers", 0, 256),
            ("threads", 0, 4096),
            ("limit", 0, 1 << 40),
            ("neighbours", 1, 1 << 16),
            ("candidates", 2, 1 << 16),
            ("new_tokens", 1, 1 << 16),
        ):
            check_range(f"--{name.replace('_', '-')}", getattr(self, name), low, high)
        if len(self.data) > 1 and (self.source or self.options or self.map):
            raise Mt2stError(
                f"--source, --map and --options are for one set, but {len(self.data)} are given; evaluate each with a "
                "command of its own"
            )
        for option in self.options:
            if not option.partition("=")[0] or "=" not in option:
                raise Mt2stError(f"--options {option!r} is not NAME=VALUE; for example --options other_counts=yes")
