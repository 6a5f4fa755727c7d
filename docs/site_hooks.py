"""Hooks of the site's builder (mkdocs.yml): documents outside docs/ become pages, and links lead to them or to the repository.

A link to a file that is in neither place is an error: `mkdocs build --strict` ends with it.
"""

import pathlib
import posixpath
import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = pathlib.Path(__file__).parents[1]
OUTSIDE = {
    "README.md": "index.md",
    "WORKSPACE.md": "workspace.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "launch/README.md": "launch.md",
}
"""Documents by their place in the repository, and the page that each becomes."""
_LINK = re.compile(r"\[(?P<text>[^][]*)\]\((?P<target>[^)\s#:]+)(?P<anchor>#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages of documents outside docs/."""
    for source, page in OUTSIDE.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes links relative to the page of links relative to the document."""
    source = next((source for source, name in OUTSIDE.items() if name == page.file.src_uri), f"docs/{page.file.src_uri}")

    def moved(link: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
        address = _address(there, source, page, config)
        return link["text"] if address is None else f"[{link['text']}]({address}{link['anchor'] or ''})"

    return _LINK.sub(moved, markdown)


def _address(there: str, source: str, page: Page, config: MkDocsConfig) -> str | None:
    """The address, from a page, of what stands at a path of the repository; None where the repository's own address is not known."""
    if not (ROOT / there).exists():
        raise PluginError(f"{source}: links to {there}, which is not in the repository")
    if there in OUTSIDE or (there.startswith("docs/") and (ROOT / there).is_file()):
        return posixpath.relpath(OUTSIDE.get(there, there.removeprefix("docs/")), posixpath.dirname(page.file.src_uri) or ".")
    return f"{config.repo_url.rstrip('/')}/blob/main/{there}" if config.repo_url else None


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Makes a tutorial's links, which its notebook has as HTML, lead to pages; links to files that are not there are an error."""
    if not page.file.src_uri.startswith("tutorials/"):
        return html
    source = f"docs/{page.file.src_uri}"

    def moved(link: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join(posixpath.dirname(source), link["target"]))
        address = _address(there, source, page, config)
        found = None if address is None else files.get_file_from_path(posixpath.normpath(posixpath.join("tutorials", address)))
        return f'href="{address if found is None else found.url_relative_to(page.file)}"'

    return re.sub(r'href="(?P<target>[^":#]+\.(?:md|py))"', moved, html)
