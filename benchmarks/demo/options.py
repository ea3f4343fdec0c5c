"""What `python -m benchmarks demo` can be told. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mt2st.errors import Mt2stError, check_range


@dataclass(frozen=True)
class Options:
    """Show one run or two.

    Attributes:
        runs: folders of one or two finished runs of vqa or retrieval.
        gallery: folder of pictures to search; None = the pictures of the first run's examples.
        host: address to listen on.
        port: port to listen on; 0 = any free one.
        device: where the models compute.
        most_megabytes: largest file that is taken, in 10^6 bytes.
        most_megapixels: largest picture that is decoded, in 10^6 pixels.
    """

    runs: tuple[Path, ...]
    gallery: Path | None = None
    host: str = "127.0.0.1"
    port: int = 7860
    device: str = "auto"
    most_megabytes: float = 8.0
    most_megapixels: float = 40.0

    def __post_init__(self) -> None:
        if not 1 <= len(self.runs) <= 2:
            raise Mt2stError(f"demo shows one run or two, not {len(self.runs)}")
        check_range("port", self.port, 0, 65535, "0 = any free one")
        check_range("most_megabytes", self.most_megabytes, 0.001, 100, "shrink the picture before")
        check_range("most_megapixels", self.most_megapixels, 0.001, 89, "shrink the picture before")

    @property
    def most_bytes(self) -> int:
        """Largest file that is taken."""
        return int(self.most_megabytes * 1e6)

    @property
    def most_pixels(self) -> int:
        """Largest width × height that is decoded."""
        return int(self.most_megapixels * 1e6)
