#!/usr/bin/env python3
"""Uses the page of `lamina neurons serve` in a headless Chromium, as a person with a keyboard would, and takes pictures of it.

neurons_browser.py LAMINA [FOLDER [MODEL]]: pictures go to FOLDER when it is given. Searches, opens a neuron, clamps it, stops a
clamp, and looks at what the page then shows; fails on anything on the console, on a request that leaves the page's own address,
on a page wider than its window and on text that is too faint. Exit status 77 (skipped) where there is no Chromium or no model.
"""
import base64
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = (ROOT / ".cache" / "smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", ROOT.parent / "shared" / "data" / "weights" / "stories260K" / "stories260K.gguf")
KEYS = {"Enter": (13, "\r"), "Tab": (9, ""), "ArrowDown": (40, ""), "ArrowRight": (39, ""), "Escape": (27, "")}

# Text against what lies behind it, as WCAG counts it: what is fainter than 4.5 to 1.
FAINT = """(() => {
  const rgb = (text) => { const n = text.match(/[\\d.]+/g).map(Number); return n.length === 3 ? [...n, 1] : n; };
  const light = ([r, g, b]) => { const f = (c) => { c /= 255; return c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; }; return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b); };
  const behind = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 0.99) return c; } return [255, 255, 255]; };
  const faint = [];
  for (const e of document.querySelectorAll("body *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.checkVisibility() || e.matches(":disabled, option, noscript, .skip, .hidden")) continue;
    const a = light(rgb(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push(`${ratio.toFixed(2)} ${e.tagName}.${e.className} ${e.textContent.slice(0, 30)}`);
  }
  return faint.slice(0, 5);
})()"""


class Browser:
    """Chromium's own protocol through a pipe: no package needed."""

    def __init__(self, chromium, profile):
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()

        def hand_over():
            # The protocol is spoken on 3 and 4.
            copies = os.dup(theirs_in), os.dup(theirs_out)
            high = [os.dup2(descriptor, 60 + i) for i, descriptor in enumerate(copies)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self.process = subprocess.Popen(
            [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--hide-scrollbars",
             "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=hand_over)
        os.close(theirs_in)
        os.close(theirs_out)
        self.read, self.write = os.fdopen(ours_in, "rb", 0), os.fdopen(ours_out, "wb", 0)
        self.number, self.answers, self.said, self.requests = 0, {}, [], []
        self.arrived = threading.Condition()
        threading.Thread(target=self.listen, daemon=True).start()
        target = self.ask("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    session = None

    def listen(self):
        rest = b""
        while piece := self.read.read(1 << 16):
            *messages, rest = (rest + piece).split(b"\0")
            for message in map(json.loads, messages):
                with self.arrived:
                    if "id" in message:
                        self.answers[message["id"]] = message
                        self.arrived.notify_all()
                    elif message["method"] == "Network.requestWillBeSent":
                        self.requests.append(message["params"]["request"]["url"])
                    elif message["method"] in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                        self.said.append(json.dumps(message["params"])[:500])

    def ask(self, method, **parameters):
        self.number += 1
        number = self.number
        message = {"id": number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        with self.arrived:
            if not self.arrived.wait_for(lambda: number in self.answers, timeout=60):
                raise RuntimeError(f"{method}: the browser does not answer")
            answer = self.answers.pop(number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def value(self, expression):
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails'].get('exception', {}).get('description')}")
        return answer["result"].get("value")

    def until(self, expression, what, seconds=60):
        end = time.monotonic() + seconds
        while True:
            # What is asked for may not be on the page yet.
            if self.value(f"(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()"):
                return
            if time.monotonic() > end:
                raise AssertionError(f"{what}: not within {seconds} s; the page says: {self.value('document.body.innerText')[:800]}")
            time.sleep(0.05)

    def key(self, name):
        code, text = KEYS[name]
        self.ask("Input.dispatchKeyEvent", type="keyDown", key=name, code=name, windowsVirtualKeyCode=code, text=text)
        self.ask("Input.dispatchKeyEvent", type="keyUp", key=name, code=name, windowsVirtualKeyCode=code)

    def type(self, text):
        self.ask("Input.insertText", text=text)

    def look(self, width, height, scheme):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def picture(self, path):
        height = min(self.value("document.documentElement.scrollHeight"), 4000)
        width = self.value("innerWidth")
        self.value("scrollTo(0, 0)")
        shot = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip={"x": 0, "y": 0, "width": width, "height": height, "scale": 1})
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self):
        try:
            self.session = None
            self.ask("Browser.close")
            self.process.wait(20)
        except (RuntimeError, OSError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()


class Page:
    """`lamina neurons serve` while it runs."""

    def __init__(self, lamina, *arguments):
        environment = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        self.process = subprocess.Popen([lamina, "neurons", "serve", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True, env=environment)
        self.address = self.process.stdout.readline().strip()
        if not self.address:
            raise AssertionError(f"the page did not start: {self.process.stderr.read()}")

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        said = self.process.communicate(timeout=30)[1]
        assert self.process.returncode == 130, f"Ctrl-C: exit status {self.process.returncode}, {said}"
        assert said == "lamina: stopped\n", f"Ctrl-C: {said!r}"


def status_of(address, **options):
    try:
        return urllib.request.urlopen(urllib.request.Request(address, **options), timeout=10).status
    except urllib.error.HTTPError as error:
        return error.code


class Walk:
    """One visit of the page, step by step."""

    def __init__(self, browser, page, folder):
        self.browser, self.page, self.folder, self.problems = browser, page, folder, []

    def expect(self, truth, what):
        if not truth:
            self.problems.append(what)

    def go(self, view, shown):
        self.browser.ask("Page.navigate", url=f"{self.page.address}#/{view}")
        self.browser.until(shown, view)
        self.browser.until("!document.getElementById('view').hasAttribute('aria-busy')", view)

    def seen(self, name):
        """Looks at the page as it stands, at every width and in both schemes."""
        for width in (400, 800, 1400):
            for scheme in ("light", "dark"):
                self.browser.look(width, 900, scheme)
                time.sleep(0.3)
                wide = self.browser.value("document.documentElement.scrollWidth")
                self.expect(wide <= width, f"{name}: {wide} wide in a window of {width}")
                for faint in self.browser.value(FAINT):
                    self.problems.append(f"{name}, {scheme}: too faint: {faint}")
                if (width, scheme) in ((1400, "light"), (800, "dark"), (400, "light")):
                    self.browser.picture(self.folder / f"neurons-{name}-{width}-{scheme}.png")
        self.browser.look(1400, 900, "light")

    def search(self, concept):
        browser = self.browser
        browser.look(1400, 900, "light")
        self.go("search/", "document.activeElement.id === 'concept'")
        browser.type(concept[:-1] if len(concept) > 2 else concept)
        browser.until("!document.getElementById('options').hidden", "completion")
        browser.key("ArrowDown")
        self.expect(browser.value("document.getElementById('concept').getAttribute('aria-activedescendant')") == "option-0", "the arrow chooses in the list")
        browser.key("Escape")
        self.expect(browser.value("document.getElementById('options').hidden"), "escape closes the list")
        browser.value(f"document.getElementById('concept').value = {json.dumps(concept)}")
        browser.key("Enter")
        browser.until(f"document.querySelector('h1').textContent.includes({json.dumps(concept)}) && document.querySelector('table.hits tbody tr')", "the table of a search")
        self.expect(browser.value("location.hash") == f"#/search/{concept}", "the address names the search")
        self.expect("Control: of all" in browser.value("document.querySelector('.control').textContent"), "the control is told")
        self.expect("random directions gives" in browser.value("document.querySelector('.control').textContent"), "the random directions are told")
        rows = browser.value("[...document.querySelectorAll('table.hits tbody tr')].map((row) => row.className)")
        self.expect({"top"} <= set(rows) <= {"top", "bottom"}, f"poles of the hits: {set(rows)}")
        self.seen("search")
        self.expect(self.first_neuron_agrees(), "the table is what the program says")

    def first_neuron_agrees(self):
        concept = self.browser.value("location.hash.split('/')[2]")
        with urllib.request.urlopen(f"{self.page.address}api/find?concept={concept}&top=40", timeout=10) as answer:
            hits = json.load(answer)["hits"]
        return self.browser.value("[...document.querySelectorAll('table.hits tbody tr td:first-child')].map((cell) => cell.textContent)") == [hit["id"] for hit in hits]

    def blocks(self):
        browser = self.browser
        browser.ask("Page.navigate", url=f"{self.page.address}#/block/all")
        browser.until("document.querySelector('.strip a[href]') && document.querySelectorAll('table.hits tbody tr').length === 50", "the strip")
        browser.value("document.querySelector('.strip a[tabindex=\"0\"]').focus()")
        browser.key("ArrowRight")
        block = browser.value("document.activeElement.getAttribute('href')")
        browser.key("Enter")
        browser.until(f"location.hash === {json.dumps(block)} && document.querySelector('h1').textContent.startsWith('Block')", "a block")
        kurtosis = [float(text) for text in browser.value("[...document.querySelectorAll('table.hits tbody td:nth-child(2)')].map((cell) => cell.textContent)")]
        self.expect(kurtosis == sorted(kurtosis, reverse=True) and len(kurtosis) == 50, "the neurons of a block stand by kurtosis")
        first = browser.value("document.querySelector('table.hits tbody a').textContent")
        browser.value("[...document.querySelectorAll('.pager button')].find((button) => button.textContent === 'Next').click()")
        browser.until(f"document.querySelector('.pager span').textContent.startsWith('51 to') && document.querySelector('table.hits tbody a').textContent !== {json.dumps(first)}", "the next page")
        self.seen("blocks")

    def neuron(self, neuron):
        browser = self.browser
        self.go(f"neuron/{neuron}", f"document.querySelector('h1').textContent === 'Neuron {neuron}'")
        self.expect(browser.value("document.querySelectorAll('.vector').length") == 3, "three vectors")
        self.expect(browser.value("document.querySelectorAll('.vector table.bars').length") == 6, "six lists")
        self.expect("Cosines: up and down" in browser.value("document.getElementById('view').textContent"), "the cosines are told")
        with urllib.request.urlopen(f"{self.page.address}api/neuron?id={neuron}", timeout=10) as answer:
            told = json.load(answer)
        up = next(one for one in told["sets"] if one["rows"] == "up")
        shown = browser.value("[...document.querySelector('.vector table.bars').rows].map((row) => row.cells[0].textContent)")
        plain = [text.replace("·", " ") for text in shown]
        self.expect(len(plain) == len(up["top"]) and all("\\" in seen or seen == one["text"] for seen, one in zip(plain, up["top"])), f"tokens as they are: {shown}")
        self.seen("neuron")

    def clamp(self, neuron, concept):
        browser = self.browser
        self.go(f"neuron/{neuron}", f"document.querySelector('h1').textContent === 'Neuron {neuron}'")
        browser.value(f"document.getElementById('concept-watched').value = {json.dumps(concept)}")
        browser.value("const slider = document.getElementById('slider'); slider.value = '20'; slider.dispatchEvent(new Event('input')); 1")
        self.expect(browser.value("document.getElementById('value').value") == "20", "the slider writes its number")
        browser.value("document.getElementById('prompt').focus()")
        browser.value("document.getElementById('run').focus()")
        browser.key("Enter")
        browser.until("document.getElementById('status').textContent.startsWith('Done')", "a clamp", 300)
        said = {side: browser.value(f"document.querySelector('#said-{side} span:last-child').textContent") for side in ("before", "after")}
        self.expect(said["before"] and said["after"], f"both answers are there: {said}")
        self.expect(said["before"] != said["after"], f"twenty standard deviations change the answer: {said}")
        for side in ("before", "after"):
            self.expect(browser.value(f"document.querySelectorAll('#next-{side} tr').length") == 8, f"next tokens {side}")
        self.expect(float(browser.value("document.getElementById('figure-kl').textContent").split()[0]) > 0, "the clamp has an effect")
        self.expect(browser.value("/^[+−]?\\d/.test(document.getElementById('figure-concept').textContent)"), "the concept's change is told")
        self.expect("standard deviation" in browser.value("document.getElementById('held').textContent"), "what a standard deviation is")
        self.seen("clamp")
        # Nothing changes where a neuron is multiplied by one.
        browser.value("const mode = document.getElementById('mode'); mode.value = 'scale'; mode.dispatchEvent(new Event('change')); document.getElementById('value').value = '1'; document.getElementById('run').click()")
        browser.until("document.getElementById('status').textContent.startsWith('Done')", "a clamp by one", 300)
        self.expect(float(browser.value("document.getElementById('figure-mean-kl').textContent").split()[0]) < 1e-6, "a factor of one changes nothing")
        self.expect(browser.value("document.querySelector('#said-before span:last-child').textContent === document.querySelector('#said-after span:last-child').textContent"), "nor the answer")
        # Stopping ends the computation: another one may start.
        browser.value("document.getElementById('tokens').value = '200'; document.getElementById('value').value = '3'; document.getElementById('run').click()")
        browser.until("document.querySelector('#said-before span:last-child').textContent.length > 0", "the first words", 120)
        browser.value("document.getElementById('stop').click()")
        browser.until("document.getElementById('status').textContent === 'Stopped.'", "a stop", 10)
        time.sleep(1)
        browser.value("document.getElementById('tokens').value = '2'; document.getElementById('run').click()")
        browser.until("document.getElementById('status').textContent.startsWith('Done')", "a run after a stop", 120)

    def wrong(self):
        """What the program refuses is a sentence on the page. Its status is an entry of the console, which is not counted here."""
        before = len(self.browser.said)
        self.go("neuron/999.0", "document.querySelector('[role=alert]')")
        self.expect("is no neuron" in self.browser.value("document.querySelector('[role=alert]').textContent"), "an unknown neuron is told")
        time.sleep(0.3)
        del self.browser.said[before:]


def check_doors(page):
    """From outside the browser: the address is the key."""
    problems = []
    root = page.address.split("/", 3)
    origin = "/".join(root[:3])
    for address, options, status in (
            (page.address, {}, 200), (origin + "/", {}, 404), (origin + "/" + "0" * 32 + "/", {}, 404),
            (page.address + "api/header", {"headers": {"Origin": "http://example.org"}}, 403), (page.address + "api/header", {"headers": {"Host": "example.org"}}, 403),
            (page.address + "api/header", {"method": "DELETE"}, 405), (page.address + "../../etc/passwd", {}, 404),
            (page.address + "api/clamp", {"method": "POST", "data": b"{}", "headers": {"Content-Type": "application/json"}}, 400),
            (page.address + "api/clamp", {"method": "POST", "data": b" " * 70000, "headers": {"Content-Type": "application/json"}}, 413)):
        if (got := status_of(address, **options)) != status:
            problems.append(f"{options} {address.replace(page.address, 'PAGE/')}: status {got} where {status} was expected")
    return problems


def main():
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not chromium:
        print("skipped: there is no Chromium")
        return 77
    lamina = pathlib.Path(sys.argv[1]).resolve()
    model = next((path for path in (map(pathlib.Path, sys.argv[3:4]) if len(sys.argv) > 3 else MODELS) if path.exists()), None)
    if model is None:
        print("skipped: there is neither SmolLM2 in .cache/smollm2 nor stories260K in ../shared")
        return 77
    small = "smollm2" not in str(model).lower()
    problems = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else scratch).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        atlas = folder / f"{model.stem}.atlas.sqlite"
        if not atlas.exists():
            blocks = [] if small or len(sys.argv) > 3 else ["--blocks", "20-23"]
            subprocess.run([lamina, "neurons", "map", model, "-o", atlas, "--rows", "up,gate,down", "--norm", "rms", "--random", "512", *blocks], check=True)
        browser = Browser(chromium, pathlib.Path(scratch) / "profile")
        try:
            page = Page(lamina, atlas, "--model", model, "--no-open")
            concept = "little" if small else "dog"
            walk = Walk(browser, page, folder)
            walk.search(concept)
            neuron = browser.value("document.querySelector('table.hits tbody tr.top a').textContent")
            walk.blocks()
            walk.neuron(neuron)
            walk.clamp(neuron, concept)
            walk.wrong()
            problems += walk.problems + check_doors(page)
            strange = {url for url in browser.requests if not url.startswith(page.address) and url != "about:blank"}
            problems += [f"asked elsewhere: {url}" for url in strange]
            page.stop()
            reading = Page(lamina, atlas, "--no-open")
            walk = Walk(browser, reading, folder)
            walk.go(f"neuron/{neuron}", "document.getElementById('reads-only')")
            walk.expect("--model" in browser.value("document.getElementById('reads-only').textContent"), "without a model the page says how to give one")
            reading.stop()
            for other in MODELS:
                if other.exists() and not other.samefile(model):
                    refused = subprocess.run([lamina, "neurons", "serve", atlas, "--model", other, "--no-open"], capture_output=True, text=True, timeout=120, check=False)
                    walk.expect(refused.returncode == 1 and "is not the model of this atlas" in refused.stderr, f"another model is refused: {refused.stderr}")
            problems += walk.problems + [f"console: {line}" for line in browser.said]
        except (AssertionError, RuntimeError) as error:
            problems.append(str(error))
            problems += [f"console: {line}" for line in browser.said]
        finally:
            browser.close()
            for one in ("page", "reading"):
                if one in locals() and locals()[one].process.poll() is None:
                    locals()[one].process.kill()
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
