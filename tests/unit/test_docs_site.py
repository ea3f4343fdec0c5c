"""The documentation site builds without a warning, holds what it should, and loads nothing from other hosts."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import mt2st
from benchmarks.cases import case_names
from tests.helpers.documentation import CARDS, PAGES, ROOT

EXAMPLES = {"mt2st/objectives/mean_colour.py"}  # files that a page tells the reader to make


@pytest.fixture
def hooks(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "docs" / "hooks")
    import pages

    return pages


def test_the_site_builds_strictly_and_is_whole(tmp_path: Path, hooks: ModuleType) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    site = {path.relative_to(tmp_path / "site").as_posix(): path for path in (tmp_path / "site").rglob("*.html")}
    assert {f"cases/{name}.html" for name in case_names()} <= set(site)
    published = [name for name in case_names() if (ROOT / "results" / "published" / name / "default").is_dir()]
    assert {f"results/{name}-default.html" for name in published} <= set(site)
    api = "".join(path.read_text(encoding="utf-8") for name, path in site.items() if name.startswith("api/"))
    for name in mt2st.__all__:
        assert f'id="mt2st.{mt2st._HOME[name]}.{name}"' in api, name
    for name, path in site.items():
        assert not hooks.loaded_from_elsewhere(path.read_text(encoding="utf-8")), name
    pictures = re.findall(r'<img[^>]*src="([^"]+)"', site["results/vqa-default.html"].read_text(encoding="utf-8"))
    assert pictures
    assert all((tmp_path / "site" / "results" / picture).is_file() for picture in pictures)


def test_a_page_that_loads_from_another_host_is_found(hooks: ModuleType) -> None:
    page = (
        '<a href="https://a.example">named, not loaded</a><script src="/own.js"></script><img src="own.png">'
        '<script src="https://b.example/x.js"></script><link rel="stylesheet" href="//c.example/x.css">'
    )
    assert hooks.loaded_from_elsewhere(page) == ["https://b.example/x.js", "//c.example/x.css"]


def test_links_are_turned_to_pages_or_refused(hooks: ModuleType) -> None:
    places = hooks.pages_of(ROOT) | hooks.pictures_of(ROOT)
    text = "[card](benchmarks/cases/vqa/README.md) [host](https://a.example)\n```\n[0](not/a/link)\n```\n"
    turned = hooks.with_links(text, "README.md", "index.md", places)
    assert turned == text.replace("benchmarks/cases/vqa/README.md", "cases/vqa.md")
    text = "[log](../../../results/published/vqa/tuning.md)"
    turned = hooks.with_links(text, "benchmarks/cases/vqa/README.md", "cases/vqa.md", places)
    assert turned == "[log](../results/vqa-tuning.md)"
    with pytest.raises(Exception, match=r"README\.md links to mt2st/flops\.py, which has no page"):
        hooks.with_links("[code](mt2st/flops.py)", "README.md", "index.md", places)


@pytest.mark.parametrize(
    "page", [*PAGES, *CARDS, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.relative_to(ROOT).as_posix()
)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:benchmarks|data_prep|docs|mt2st|results|tests)/[^`\s<*:…]*)`", text)) - EXAMPLES
    kept = [name for name in named if not name.startswith("results/") or name.startswith("results/published")]
    missing = [name for name in kept if not (ROOT / name).exists()]
    assert not missing
    for link in re.findall(r"\]\((?!https?:|#)([^)\s#]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)):
        assert (page.parent / link).exists(), link


def test_one_version_everywhere() -> None:
    def found(name: str, pattern: str) -> str:
        match = re.search(pattern, (ROOT / name).read_text(encoding="utf-8"), re.MULTILINE)
        assert match, name
        return match[1]

    assert {
        found("pyproject.toml", r'^version = "(.+)"'),
        found("CITATION.cff", r"^version: (.+)"),
        found("CHANGELOG.md", r"^## (\S+)"),
    } == {mt2st.__version__}
