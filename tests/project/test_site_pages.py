"""The pages of the site: all are found, all links lead somewhere, nothing is left out."""

import posixpath
import re

import pytest
import yaml
from pymdownx.slugs import slugify
from typer.testing import CliRunner

import modicum as md
from conftest import ROOT
from experiment_pages import experiment_pages
from modicum.cli.main import app
from modicum.experiment.registry import experiment_names
from notebook_pages import notebook_pages
from site_links import copied_pages, linked_sources, links, turned
from source_pages import source_pages
from study_pages import FAMILIES, split_header, study_pages

DOCS = ROOT / "docs"


class _Loader(yaml.SafeLoader):
    """MkDocs' file names a Python function, which is not needed here."""


_Loader.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def written():
    return {path.relative_to(DOCS).as_posix(): path.read_text() for path in DOCS.rglob("*.md")}


@pytest.fixture(scope="module")
def pages():
    """Every page's text by address, with links as the site has them."""
    texts = written()
    made = {
        **copied_pages(ROOT),
        **experiment_pages(),
        **study_pages(ROOT),
        **notebook_pages(ROOT),
        **source_pages(ROOT, linked_sources(texts)),
    }
    texts |= {uri: text for uri, text in made.items() if uri.endswith(".md")}
    return {uri: turned(text, uri) for uri, text in texts.items()}


def navigated(entries):
    """Addresses in a navigation, in their order."""
    for entry in entries:
        if isinstance(entry, str):
            yield entry
        elif isinstance(entry, list):
            yield from navigated(entry)
        else:
            yield from navigated(entry.values())


def without_code(text):
    return re.sub(r"^( *)(`{3,}).*?^\1\2$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text):
    """Names of a page's headings, and of the objects that the API reference describes in it."""
    slug = slugify(case="lower")
    found = set(re.findall(r"^::: (\S+)$", text, flags=re.MULTILINE))
    for heading in re.findall(r"^#+ (.*)$", without_code(text), flags=re.MULTILINE):
        named = re.search(r"\{ #(\S+) \}", heading)
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)|`", r"\1", heading)
        found.add(named.group(1) if named else slug(plain, "-"))
    return found


def test_every_page_is_in_the_navigation_once(pages):
    config = yaml.load((ROOT / "mkdocs.yml").read_text(), _Loader)
    listed = list(navigated(config["nav"]))
    assert len(listed) == len(set(listed))
    assert set(listed) == {uri for uri in pages if not uri.startswith("source/")}


def test_every_link_leads_to_a_page_and_its_heading(pages):
    for uri, text in pages.items():
        for path, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", without_code(text)):
            target = posixpath.normpath(posixpath.join(posixpath.dirname(uri), path))
            target = target if path else uri
            if target in pages:
                assert not anchor or anchor in anchors(pages[target]), (uri, path, anchor)
            else:
                made = target.startswith("notebooks/") and target.endswith(".png")
                assert made or (DOCS / target).is_file(), (uri, path)


def described(experiment):
    """Names of settings and metrics as the command line lists them."""
    printed = CliRunner().invoke(app, ["describe", experiment]).stdout
    settings, metrics = printed.split("\nmetrics\n")
    return [
        re.findall(r"^  ([\w./*]+): ", part, flags=re.MULTILINE) for part in (settings, metrics)
    ]


@pytest.mark.parametrize("experiment", experiment_names())
def test_every_setting_and_metric_is_on_the_page_of_its_experiment(pages, experiment):
    page = pages[f"options/{experiment}.md"]
    settings, metrics = described(experiment)
    assert settings
    assert metrics
    assert set(settings) <= anchors(page)
    for metric in metrics:
        assert f"| `{metric}` |" in page


def test_a_setting_is_shown_with_its_limits_and_conditions(pages):
    part = pages["options/weak.md"].split("### `vote_weight`")[1].split("###")[0]
    assert "default `0.5`" in part
    assert "only where `method` is `iwl` or `iwld`" in part
    assert "at least 0" in part


def test_tables_of_metrics_have_four_columns(pages):
    """A bar within a description is no border."""
    for experiment in experiment_names():
        table = pages[f"options/{experiment}.md"].split("## Metrics")[1].strip()
        for row in table.splitlines():
            assert len(re.findall(r"(?<!\\)\|", row)) == 5, row


def test_every_study_file_is_shown_whole(pages):
    paths = sorted((ROOT / "tune_configs").rglob("*.yaml"))
    shown = "".join(pages[f"study_files/{family}.md"] for family in FAMILIES)
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        assert shown.count(f'??? abstract "`{name}`"') == 1
        body = split_header(path.read_text())[1]
        assert all(f"    {line}".rstrip() in shown for line in body.splitlines())


def test_the_api_reference_has_every_public_name(pages):
    api = "".join(text for uri, text in pages.items() if uri.startswith("api/"))
    described = set(re.findall(r"^::: (\S+)$", api, flags=re.MULTILINE))
    modules = {"data", "oracles", "training"}
    public = {f"modicum.{name}" for name in set(md.__all__) - modules}
    for module in modules:
        names = getattr(md, module).__all__
        # Constants and types without a docstring have nothing to show.
        public |= {f"modicum.{module}.{name}" for name in names if name not in {"Winner"}}
    assert public - {"modicum.data.TABLE_SUFFIXES"} <= described


def test_links_out_of_the_documentation_are_turned():
    text = (
        "See [a study](../tune_configs/weak/table_3_2.yaml), [how](../CONTRIBUTING.md#habits),\n"
        "[the notebook](../notebooks/weak.ipynb), [code](../algorithms/a/b.py), "
        "[terms](../LICENSE), [near](weak.md#data) and [far](https://example.org/a.md).\n"
        "```\n[untouched](../LICENSE)\n```\n"
        "`modicum describe weak`, `tune_configs/quickstart.yaml`\n"
    )
    assert turned(text, "page.md") == (
        "See [a study](study_files/weak.md#table_3_2), [how](contributing.md#habits),\n"
        "[the notebook](notebooks/weak.md), [code](source/algorithms/a/b.md), "
        "terms, [near](weak.md#data) and [far](https://example.org/a.md).\n"
        "```\n[untouched](../LICENSE)\n```\n"
        "[`modicum describe weak`](options/weak.md), "
        "[`tune_configs/quickstart.yaml`](study_files/weak.md#quickstart)\n"
    )


def test_links_of_pages_that_lie_elsewhere_are_turned():
    deep = "[up](../../notebooks/vae.ipynb), [beside](own_data.md), `modicum describe vae`"
    assert turned(deep, "how_to/gpu.md") == (
        "[up](../notebooks/vae.md), [beside](own_data.md), "
        "[`modicum describe vae`](../options/vae.md)"
    )
    copied = "[pages](docs/weak.md), [code](platform/modicum/study.py)"
    assert turned(copied, "contributing.md") == (
        "[pages](weak.md), [code](source/platform/modicum/study.md)"
    )
    assert links("[a](b.md#c) ```no``` ![p](q.png)\n```\n[d](e.md)\n```\n") == ["b.md"]


def test_every_row_of_the_paper_index_leads_to_code_or_says_why_not():
    """Its numbers are those of the thesis: 3.1 to 3.11, 4.1 to 4.33, and so on, without a gap."""
    text = (DOCS / "paper_index.md").read_text()
    equations = []
    for table in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        head, _, *rows = table.splitlines()
        for row in rows:
            excused = re.search(r"not code|not built|not reproduced", row)
            assert excused or "](" in row, row
            if "measured" in head:
                measured = row.rsplit("|", 2)[1]
                assert "](" in measured or re.search(r"nothing to measure|not reproduced", measured)
            if head.startswith("| equation |"):
                equations.append(row.split("|")[1])
    last = {"3": 11, "4": 33, "5": 12, "6": 10, "A": 2, "B": 3, "C": 4}
    expected = {f"{chapter}.{n}" for chapter, most in last.items() for n in range(1, most + 1)}
    assert set(numbers(equations)) == expected


def numbers(cells):
    for cell in cells:
        for part in cell.split(","):
            first, _, end = part.strip().partition(" to ")
            chapter, point, number = first.partition(".")
            if not point:
                continue  # An algorithm.
            until = int(end.partition(".")[2]) if end else int(number)
            yield from (f"{chapter}.{n}" for n in range(int(number), until + 1))


def test_every_figure_and_table_of_the_thesis_is_in_the_paper_index():
    text = (DOCS / "paper_index.md").read_text()
    rows = " ".join(row.split("|")[1] for row in text.splitlines() if row.startswith("|"))
    named = set(re.findall(r"(?<![\d.])[3-6A-D]\.\d+", rows))
    figures = (
        "3.1 3.2 4.1 4.2 4.3 4.4 4.5 4.6 4.7 4.8 4.9 4.10 5.1 5.2 5.3 5.4 5.5 5.6 5.7 6.1 6.2 6.3"
    )
    tables = "6.4 A.1 A.2 C.1 C.2 C.3 D.1 D.2 3.1 3.2 4.1 6.1 6.2 6.3 A.1 B.1 B.2 D.1"
    assert set(f"{figures} {tables}".split()) <= named
    assert "tables D.1 to D.4" in rows
