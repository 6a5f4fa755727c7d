"""Pages as a browser shows them: Chromium, headless."""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator

from playwright.sync_api import Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")

OUTSIDE = """
() => {
  const width = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > width) found.push(`the page is ${document.documentElement.scrollWidth} wide`);
  for (const element of document.querySelectorAll("body *"))
    if (element.clientWidth && element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX !== "visible")
      found.push(`${element.tagName} ${element.className} is cut off`);
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let text; (text = texts.nextNode());) {
    const range = document.createRange();
    range.selectNodeContents(text);
    for (const box of text.data.trim() ? range.getClientRects() : [])
      if (box.width && (box.left < -1 || box.right > width + 1)) found.push(`${Math.round(box.right)}: ${text.data.slice(0, 60)}`);
  }
  return found;
}
"""
"""What of a page's text lies outside it, or outside a box that does not show what overflows."""


@contextlib.contextmanager
def opened() -> Iterator[Page]:
    """A page of a headless Chromium that fetches nothing of its own."""
    assert CHROMIUM, "no Chromium here: apt-get install chromium"
    offline = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=offline)
        yield running.new_page()
        running.close()


def outside(browser: Page, report: pathlib.Path, width: int) -> list[str]:
    browser.set_viewport_size({"width": width, "height": 900})
    browser.goto(report.as_uri())
    return browser.evaluate(OUTSIDE)
