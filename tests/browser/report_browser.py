#!/usr/bin/env python3
"""Opens the example reports in a headless Chromium and takes pictures of them.

report_browser.py WRITE_EXAMPLES [FOLDER]: pictures go to FOLDER when it is given. Fails on anything that the page writes
to the console, on a page wider than its window, and when keys or buttons do not do what they should.
Exit status 77 (skipped) where there is no Chromium.
"""
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

WIDTHS = (400, 800, 1400)
SCHEMES = {"dark": 0, "light": 1}
HEIGHT = 6600

# Runs in a copy of the page whose content security policy is taken away; says on the console what is wrong.
PROBE = """
const expect = (truth, what) => { if (!truth) console.error("probe: " + what); };
// A window that the browser has not given the focus moves the focus without a word; the page's listeners are told here.
const moves = HTMLElement.prototype.focus;
HTMLElement.prototype.focus = function (...options) {
  let told = false;
  const hear = () => { told = true; };
  this.addEventListener("focusin", hear);
  moves.apply(this, options);
  this.removeEventListener("focusin", hear);
  if (!told && document.activeElement === this) this.dispatchEvent(new FocusEvent("focusin", {bubbles: true}));
};
const key = (element, name) => element.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true, cancelable: true}));
const tip = document.querySelector(".tip");
const root = document.documentElement;
expect(root.scrollWidth <= root.clientWidth, `the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
const network = document.querySelector("figure.cells");
if (network) {
  const cells = [...network.querySelectorAll(".scroll .cell")];
  expect(cells.filter((cell) => cell.tabIndex === 0).length === 1, "one cell of the network is in the tab order");
  cells[0].focus();
  expect(!tip.hidden && tip.textContent === cells[0].dataset.tip, "focus shows what a cell says");
  key(cells[0], "ArrowRight");
  expect(document.activeElement === cells[1] && tip.textContent === cells[1].dataset.tip, "the right arrow goes to the next cell");
  key(cells[1], "ArrowDown");
  expect(document.activeElement.dataset.row === "1", "the down arrow goes to the next block");
  key(document.activeElement, "Escape");
  expect(tip.hidden, "escape hides the tip");
  document.activeElement.blur();
}
const map = document.querySelector("figure.map svg.heat");
if (map) {
  const box = map.getBoundingClientRect();
  const scale = box.width / map.viewBox.baseVal.width;
  const x = box.left + (+map.dataset.left + 0.5 * map.dataset.width) * scale, y = box.top + (+map.dataset.top + 0.5 * map.dataset.height) * scale;
  map.dispatchEvent(new PointerEvent("pointermove", {clientX: x, clientY: y}));
  expect(!tip.hidden && tip.textContent.startsWith("step 1, candidate A0: score"), "pointing at a map tells its cell: " + tip.textContent);
  key(map, "ArrowRight");
  expect(/candidate (F0|A1):/.test(tip.textContent), "arrows move in a map: " + tip.textContent);
  key(map, "Escape");
  expect(tip.hidden, "escape hides the tip of a map");
}
for (const chart of document.querySelectorAll("figure.chart")) {
  const plot = chart.querySelector(".plot");
  expect(plot && plot.querySelector("canvas"), "every curve is drawn");
  if (!plot) continue;
  key(plot, "ArrowRight");
  expect(/: .* \\d/.test(chart.querySelector(".readout").textContent), "arrows read a curve: " + chart.querySelector(".readout").textContent);
}
for (const button of document.querySelectorAll("button.copy")) expect(!button.hidden, "with a script there are copy buttons");
for (const fold of document.querySelectorAll("details")) fold.open = true;
expect(root.scrollWidth <= root.clientWidth, `unfolded, the page is ${root.scrollWidth} wide in a window of ${root.clientWidth}`);
console.log("probe came to its end");
"""


def console(chromium: str, page: pathlib.Path, *options: str) -> list[str]:
    """What the page said on its console."""
    with tempfile.TemporaryDirectory() as profile:
        done = subprocess.run(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars",
             f"--user-data-dir={profile}", "--enable-logging=stderr", *options, page.as_uri()],
            capture_output=True, text=True, timeout=120, check=False)
    return re.findall(r"CONSOLE.*", done.stderr)


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        print("skipped: there is no Chromium")
        return 77
    writer = sys.argv[1]
    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else scratch).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run([writer, str(folder)], check=True)
        for page in sorted(folder.glob("*.html")):
            html = page.read_text()
            for width in WIDTHS:
                for scheme, number in SCHEMES.items():
                    picture = folder / f"{page.stem}-{width}-{scheme}.png"
                    picture.unlink(missing_ok=True)
                    said = console(chromium, page, f"--window-size={width},{HEIGHT}", f"--blink-settings=preferredColorScheme={number}", f"--screenshot={picture}")
                    problems += [f"{page.name}, {width}, {scheme}: {line}" for line in said]
                    if not picture.exists():
                        problems.append(f"{page.name}, {width}, {scheme}: no picture was taken")
                probed = pathlib.Path(scratch) / f"{page.stem}-probed.html"
                probed.write_text(re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html).replace("</body>", f"<script>{PROBE}</script></body>"))
                # On a busy machine the browser sometimes moves the focus late; what is really wrong is wrong twice.
                for _ in range(2):
                    said = console(chromium, probed, f"--window-size={width},900", f"--screenshot={pathlib.Path(scratch) / 'probed.png'}")
                    if len(said) == 1 and "probe came to its end" in said[0]:
                        break
                if not any("probe came to its end" in line for line in said):
                    problems.append(f"{page.name}, {width}: the probe did not come to its end")
                problems += [f"{page.name}, {width}, probe: {line}" for line in said if "probe came to its end" not in line]
            # Without script: the same page with its scripts taken out, and as it is printed.
            bare = pathlib.Path(scratch) / f"{page.stem}-bare.html"
            bare.write_text(re.sub(r"<script.*?</script>", "", html, flags=re.S))
            said = console(chromium, bare, f"--window-size=800,{HEIGHT}", f"--screenshot={folder / (page.stem + '-bare.png')}")
            problems += [f"{page.name}, without script: {line}" for line in said]
            console(chromium, page, "--no-pdf-header-footer", f"--print-to-pdf={folder / (page.stem + '.pdf')}")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
