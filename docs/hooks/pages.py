"""Pages of the site that are made from files elsewhere: cards, results, other README files, and the API of `mt2st`.

A page stands once. A case's card lies in the case's folder, a table in results/published, and both become pages here.
Links are written for a reader of the repository; here they are turned to the pages, and one without a page is an error.
"""

from __future__ import annotations

import ast
import json
import posixpath
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from speed import speed_page

ROOT = Path(__file__).parents[2]
PUBLISHED = "results/published"
_LINK = re.compile(r"(?<=\]\()(?!https?:|mailto:|#)([^)\s#]+)")
_LOADING = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
_FIXED = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "CONTRIBUTING.md": "contributing.md",
    "data_prep/README.md": "add/dataset.md",
    "results/README.md": "results/records.md",
    "benchmarks/cases": "cases/index.md",
    PUBLISHED: "results/index.md",
    f"{PUBLISHED}/TABLE.md": "results/index.md",
}


# -- which file becomes which page -------------------------------------------------------------------------------------


def pages_of(root: Path) -> dict[str, str]:
    """File or folder of the repository → its page; both as paths with slashes, from the root and from docs/."""
    found = {name: page for name, page in _FIXED.items() if (root / name).exists()}
    found |= {f"docs/{path}": path for path in _under(root / "docs", "**/*.md")}
    for path in _under(root / "benchmarks/cases", "*/README.md"):
        found[f"benchmarks/cases/{path}"] = f"cases/{posixpath.dirname(path)}.md"
    for path in _under(root / PUBLISHED, "*/*/*.md"):
        benchmark, recipe, name = path.split("/")
        kind = "" if name == "TABLE.md" else f"-{name.removesuffix('.md').lower()}"
        found[f"{PUBLISHED}/{path}"] = f"results/{benchmark}-{recipe}{kind}.md"
    for path in _under(root / PUBLISHED, "*/*.md"):
        benchmark, name = path.split("/")
        found[f"{PUBLISHED}/{path}"] = f"results/{benchmark}-{name}"
    return found


def pictures_of(root: Path) -> dict[str, str]:
    """Picture in the repository → its place in the site."""
    return {f"{PUBLISHED}/{path}": f"results/{path}" for path in _under(root / PUBLISHED, "**/*.png")}


def _under(folder: Path, pattern: str) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.glob(pattern))


def with_links(text: str, source: str, page: str, places: dict[str, str]) -> str:
    """Markdown of the file `source` as it must read on `page`.

    Raises:
        PluginError: a link to a file that has no page.
    """

    def turned(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), match[1]))
        if target not in places:
            raise PluginError(f"{source} links to {match[1]}, which has no page; name the file without a link")
        return posixpath.relpath(places[target], posixpath.dirname(page) or ".")

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(turned, part) for part in parts)


# -- generated pages ---------------------------------------------------------------------------------------------------


def results_index(root: Path, places: dict[str, str]) -> str:
    """The table of all cases, and a list of the other tables."""
    table = (root / PUBLISHED / "TABLE.md").read_text(encoding="utf-8")
    lines = ["# Results", "", table.replace("###", "##", 1), "", "## Every table", ""]
    for source, page in places.items():
        if source.startswith(f"{PUBLISHED}/") and page.endswith(".md") and page != "results/index.md":
            lines.append(f"- [{title_of(page)}]({posixpath.relpath(page, 'results')})")
    return "\n".join([*lines, "- [Speed](speed.md)", "- [What the records hold](records.md)", ""])


def title_of(page: str) -> str:
    """The name of a generated page in the navigation: "results/vqa-default.md" → "vqa, default"."""
    name = posixpath.basename(page).removesuffix(".md")
    return name.replace("-", ", ", 1) if page.startswith("results/") else name


def result_page(root: Path, source: str, page: str) -> str:
    """A table of results with the pictures beside it."""
    text = (root / source).read_text(encoding="utf-8")
    folder = posixpath.dirname(source)
    pictures = _under(root / folder, "*.png") if source.endswith("TABLE.md") else []
    shown = [f"![{name.removesuffix('.png')}]({folder.removeprefix(PUBLISHED + '/')}/{name})" for name in pictures]
    title = "" if text.lstrip().startswith("# ") else f"# {title_of(page)}\n\n"
    return title + "\n\n".join([*shown, re.sub("^###", "##", text, flags=re.MULTILINE)])


def cases_index(root: Path) -> str:
    """The cases with the first line of their knobs."""
    lines = ["# Cases", "", "A case is what is asked of a model. Each has a method card.", ""]
    for path in _under(root / "benchmarks/cases", "*/knobs.py"):
        name = posixpath.dirname(path)
        about = (root / "benchmarks/cases" / path).read_text(encoding="utf-8").split("\n")[0].strip('" ')
        lines.append(f"- [{name}]({name}.md): {about}")
    return "\n".join([*lines, ""])


def api_pages(root: Path) -> dict[str, str]:
    """Page → its text, one for each module and package of `mt2st`."""
    modules: dict[str, list[str]] = {}
    for path in _under(root / "mt2st", "**/*.py"):
        parts = ["mt2st", *path.removesuffix(".py").removesuffix("/__init__").split("/")]
        if not any(part.startswith("_") for part in parts):
            modules.setdefault(parts[1], []).append(".".join(parts))
    pages = {}
    for name, found in modules.items():
        head = "---\nsearch:\n  boost: 0.5\n---\n"
        directives = "\n\n".join(f"::: {each}" for each in sorted(found))
        pages[f"api/mt2st.{name}.md"] = f"{head}# mt2st.{name}\n\n{directives}\n"
    return pages


def api_index(root: Path) -> str:
    """The names that `import mt2st` offers, each with a link."""
    source = (root / "mt2st" / "__init__.py").read_text(encoding="utf-8")
    homes = ast.literal_eval(re.findall(r"^_HOME = (\{.*?^\})", source, re.MULTILINE | re.DOTALL)[0])
    lines = ["# API", "", "`from mt2st import …` offers these names. Each is imported when it is first used.", ""]
    lines += ["| name | home |", "|---|---|"]
    lines += [f"| [`{name}`][mt2st.{home}.{name}] | `mt2st.{home}` |" for name, home in sorted(homes.items())]
    return "\n".join([*lines, ""])


def generated_pages(root: Path) -> Iterator[tuple[str, str]]:
    """(page, text) of every page that is no file of docs/."""
    places = pages_of(root) | pictures_of(root)
    for source, page in pages_of(root).items():
        if source.startswith("docs/") or (root / source).is_dir() or page == "results/index.md":
            continue
        made = result_page if source.startswith(f"{PUBLISHED}/") else _as_it_is
        text = made(root, source, page)
        yield page, text if made is result_page else with_links(text, source, page, places)
    yield "cases/index.md", cases_index(root)
    yield "results/index.md", results_index(root, pages_of(root))
    yield "results/speed.md", speed_page(lambda name: json.loads((root / PUBLISHED / name).read_text(encoding="utf-8")))
    yield "api/index.md", api_index(root)
    yield from api_pages(root).items()


def _as_it_is(root: Path, source: str, page: str) -> str:
    return (root / source).read_text(encoding="utf-8")


# -- what mkdocs calls -------------------------------------------------------------------------------------------------


def on_config(config: Any) -> Any:
    """Put the generated pages into the sections of the navigation that are empty."""
    generated = {page for page, _ in generated_pages(ROOT)} | set(_under(ROOT / "docs", "methods/*.md"))
    for entry in config.nav:
        for title, section in entry.items() if isinstance(entry, dict) else ():
            if section == []:
                folder = title.lower()
                pages = sorted(page for page in generated if page.startswith(f"{folder}/"))
                first = f"{folder}/index.md"
                section += [first] if first in pages else []
                section += [{title_of(page): page} for page in pages if page != first]
    return config


def on_files(files: Files, config: Any) -> Files:
    """Add the generated pages and the pictures."""
    for page, text in generated_pages(ROOT):
        files.append(File.generated(config, page, content=text))
    for source, place in pictures_of(ROOT).items():
        files.append(File.generated(config, place, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Any, **others: Any) -> str:
    """Turn the links of a page of docs/."""
    uri = page.file.src_uri
    if f"docs/{uri}" not in (places := pages_of(ROOT) | pictures_of(ROOT)):
        return markdown
    return with_links(markdown, f"docs/{uri}", uri, places)


def on_post_page(output: str, page: Any, **others: Any) -> str:
    """Refuse a page that would load anything from another host."""
    if loaded := loaded_from_elsewhere(output):
        raise PluginError(f"{page.file.src_uri} would load {loaded[0]}; keep a copy in the repository")
    return output


def loaded_from_elsewhere(html: str) -> list[str]:
    """Addresses on other hosts that a browser would fetch for this page by itself."""
    found: list[str] = []

    class Loads(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            address = dict(attrs).get(_LOADING.get(tag, "")) or ""
            if address.startswith(("http:", "https:", "//")):
                found.append(address)

    Loads().feed(html)
    return found
