"""The page in a real browser: nothing wider than the window, no script error, the read-out works."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest

from diffalign.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PROBE = """<script>
  const chart = document.querySelector("svg.chart"), frame = chart.getBoundingClientRect();
  const errors = []; window.onerror = message => errors.push(message);
  const at = {clientX: frame.left + frame.width / 2, clientY: frame.top + 5};
  chart.dispatchEvent(new PointerEvent("pointermove", at));
  const wide = [...document.querySelectorAll("main *")].filter(e => !e.closest(".scroll, pre, svg"))
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length;
  document.title = JSON.stringify({page: document.documentElement.scrollWidth, window: innerWidth, wide,
    shown: document.getElementById("readout").textContent, errors: errors.length});
</script>"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome on this machine"),
]


@pytest.mark.parametrize("width", [500, 1200])
def test_page_fits_and_reads_out(run_dir, width):
    page = write_report(run_dir)
    page.write_text(page.read_text().replace("</body>", PROBE + "</body>"))
    command = [BROWSER, "--headless=new", "--no-sandbox", "--disable-gpu", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run([*command, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    title = re.search("<title>(.*?)</title>", done.stdout).group(1)
    assert '"wide":0' in title and '"errors":0' in title
    assert re.search(r'"shown":"step \d+\\nguidance 2  0\.\d+"', title)
    found = dict(re.findall(r'"(page|window)":(\d+)', title))
    assert int(found["page"]) <= int(found["window"])
