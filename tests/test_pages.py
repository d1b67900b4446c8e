"""README, documentation and reports in a browser: nothing wider than the page, nothing missing."""

from __future__ import annotations

import functools
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import markdown
import pytest

from experiments.commands.report import page_of

ROOT = Path(__file__).resolve().parents[1]
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
RESULTS = ["attack", "ablation", "detection", "audit"]
PAGES = ["index.html", "methods.html", "tutorial.html", "api/index.html"]
PAGES += [f"results-{name}.html" for name in ("attack", "detection", "audit", "bench")]

# Pages lie in an <iframe> of the wanted width: a headless window has a smallest one of its own.
FRAME = """<!doctype html><body style="margin:0"><script>
const errors = [], frame = document.createElement("iframe");
frame.style = "border:0;width:{width}px;height:900px";
frame.src = "/{page}";
frame.onload = () => setTimeout(() => {{
  const doc = frame.contentDocument, root = doc.documentElement, wide = [];
  for (const element of doc.body.querySelectorAll("*")) {{
    let inside = false, up = element;
    while ((up = up.parentElement) && up !== doc.body)
      inside ||= frame.contentWindow.getComputedStyle(up).overflowX !== "visible";
    const box = element.getBoundingClientRect();
    if (!inside && box.width > 0 && box.right > root.clientWidth + 1)
      wide.push(element.tagName + "." + element.className + " " + Math.round(box.right));
  }}
  const missing = [...doc.images].filter(image => !image.complete || !image.naturalWidth);
  const text = document.createElement("pre");
  text.id = "found";
  text.textContent = JSON.stringify({{
    width: root.clientWidth, scroll: root.scrollWidth, wide: wide.slice(0, 5), errors,
    broken: missing.map(image => image.src.slice(0, 90)),
    words: doc.body.innerText.split(/\\s+/).length,
    foreign: frame.contentWindow.performance.getEntriesByType("resource")
      .map(entry => entry.name).filter(name => !name.startsWith(location.origin)),
  }});
  document.body.appendChild(text);
}}, 1500);
document.body.appendChild(frame);
const watch = () => {{
  frame.contentWindow.addEventListener("error", event => errors.push(String(event.message)));
  frame.contentWindow.console.error = (...told) => errors.push(told.join(" "));
}};
watch();
</script>"""


class Handler(SimpleHTTPRequestHandler):
    """Serves a folder without a word."""

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """README, published reports and, where `make docs` was called, the documentation."""
    found = tmp_path_factory.mktemp("pages")
    text = (ROOT / "README.md").read_text("utf-8")
    body = markdown.markdown(text, extensions=["tables", "fenced_code"])
    style = (
        "body{max-width:980px;margin:auto;padding:16px;font:16px sans-serif}img{max-width:100%}"
        "pre,table{overflow:auto;display:block}"  # as GitHub lays them out
    )
    page = f"<!doctype html><meta charset=utf-8><style>{style}</style><body>{body}"
    (found / "readme.html").write_text(page, "utf-8")
    shutil.copytree(ROOT / "docs" / "images", found / "docs" / "images")
    for name in RESULTS:
        summary = json.loads((ROOT / "experiments" / "results" / f"{name}.json").read_text())
        page_of(summary, None).write(found / f"report-{name}.html")
    if (ROOT / "site").is_dir():
        shutil.copytree(ROOT / "site", found / "site")
    return found


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """The folder over HTTP."""
    handler = functools.partial(Handler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def measured(folder: Path, server: str, page: str, width: int) -> dict[str, Any]:
    """What a browser makes of a page."""
    name = f"{page.replace('/', '-')}-{width}.html"
    (folder / name).write_text(FRAME.format(width=width, page=page), "utf-8")
    assert CHROMIUM is not None
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
            f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000",
            "--virtual-time-budget=15000", f"{server}/{name}",
        ],
        capture_output=True, text=True, timeout=180, check=True,
    )  # fmt: skip
    found = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found is not None, f"{page} was not measured: {done.stderr[-400:]}"
    answer: dict[str, Any] = json.loads(found[1].replace("&gt;", ">").replace("&amp;", "&"))
    return answer


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize(
    "page",
    ["readme.html", *(f"report-{name}.html" for name in RESULTS), *(f"site/{p}" for p in PAGES)],
)
def test_a_page_fits(folder: Path, server: str, page: str, width: int) -> None:
    if page.startswith("site/") and not (folder / "site").is_dir():
        pytest.skip("the documentation is not built; make docs")
    found = measured(folder, server, page, width)
    assert found["width"] <= width
    assert found["words"] > 50
    assert found["scroll"] <= found["width"], found["wide"]
    assert not found["wide"]
    assert not found["broken"]
    assert not found["errors"]
    assert not found["foreign"]
