"""What MkDocs calls while it builds the site: pages are added, links out of `docs` are turned."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from experiment_pages import experiment_pages
from notebook_pages import notebook_pages
from site_links import copied_pages, linked_sources, turned
from source_pages import source_pages
from study_pages import study_pages

ROOT = Path(__file__).parent.parent
# Pages that are a section by themselves: beside them there is nothing to navigate to.
_ALONE = {"index.md", "tutorial.md"}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add pages made from experiments, study files, notebooks, sources and the root's own pages."""
    texts = {file.src_uri: file.content_string for file in files if file.src_uri.endswith(".md")}
    made: dict[str, str | bytes] = {
        **copied_pages(ROOT),
        **experiment_pages(),
        **study_pages(ROOT),
        **notebook_pages(ROOT),
        **source_pages(ROOT, linked_sources(texts)),
    }
    for uri, content in made.items():
        files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let links to files outside `docs` lead to their pages in the site."""
    if page.file.src_uri in _ALONE:
        page.meta["hide"] = ["navigation"]
    return turned(markdown, page.file.src_uri)
