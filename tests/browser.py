"""JupyterLab on loopback, and Debian's chromium in front of it: what browser tests share."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import nbformat

from partcrop_lab.widgets import BUSY_CLASS

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}  # else JupyterLab asks
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},  # else cells out of sight are not in the page
    "apputils-extension/notification": {"fetchNews": "false"},
}
DIGEST = """async picture => {
    if (picture.tagName === "svg") return picture.outerHTML;
    const data = await (await fetch(picture.src)).arrayBuffer();
    const hash = await crypto.subtle.digest("SHA-256", data);
    return Array.from(new Uint8Array(hash)).join(",");
}"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@contextmanager
def served(program, folder, *options):
    """A Jupyter program, as `python -m` takes it, that serves a folder; yields its address and its token."""
    port, token, home = free_port(), secrets.token_hex(16), folder / ".jupyter"
    for name, values in SETTINGS.items():
        place = home / "settings/@jupyterlab" / f"{name}.jupyterlab-settings"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(json.dumps(values))
    env = os.environ | {"JUPYTERLAB_SETTINGS_DIR": str(home / "settings"), "JUPYTER_CONFIG_DIR": str(home)}
    env |= {"JUPYTER_RUNTIME_DIR": str(home / "runtime"), "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces")}
    command = [sys.executable, "-m", *program, "--no-browser", f"--port={port}", *options]
    with (folder / ".log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env | {"JUPYTER_TOKEN": token}, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, (folder / ".log").read_text()
            time.sleep(0.1)
        yield address, token
    finally:
        process.terminate()
        process.wait(30)


def laboratory(folder):
    """JupyterLab, serving a folder, as `served`."""
    return served(["jupyter", "lab"], folder, "--allow-root", "--LabApp.expose_app_in_browser=True")


def write_notebook(path, *sources):
    """A notebook with a code cell for each source."""
    cells = [nbformat.v4.new_code_cell(source) for source in sources]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=KERNEL), path)


class Shown:
    """A page that shows a panel."""

    def __init__(self, page):
        self.page = page

    @property
    def picture(self):
        """The drawing of the last panel, a picture or an SVG."""
        return self.page.locator("img.widget-image:visible, .widget-html-content svg:visible").last

    def digest(self):
        """A digest of the drawing."""
        return self.picture.evaluate(DIGEST)

    def wait_for_change(self, before, timeout=60):
        """Until the drawing is another, and the panel at rest."""
        end = time.time() + timeout
        while time.time() < end:
            if self.digest() != before and not self.page.locator(f".{BUSY_CLASS}").count():
                return
            time.sleep(0.05)
        raise AssertionError(f"the drawing did not change within {timeout} s; errors: {self.errors()}")

    def fits(self):
        """Whether the last output is no wider than the page leaves it room."""
        area = self.page.locator(".jp-OutputArea-output").last
        return area.evaluate("one => one.scrollWidth <= one.clientWidth + 1")

    def errors(self):
        """Texts of errors in outputs and in panels' error lines."""
        marks = "[data-mime-type$='jupyter.error'], [data-mime-type$='jupyter.stderr'], .partcrop-error b"
        return self.page.locator(marks).all_inner_texts()

    def row(self, description):
        """The control of the last panel that has this label."""
        return self.page.locator(".widget-inline-hbox", has=self.page.get_by_text(description, exact=True)).last

    def slide(self, description, key="ArrowRight", times=3, handle=0):
        """Move a slider of the last panel by the keyboard."""
        one = self.row(description).locator(".noUi-handle").nth(handle)
        one.focus()
        for _ in range(times):
            one.press(key)

    def drag(self, one, right, down, before_release=""):
        """Drag an element by so many pixels of the screen; a script runs just before it is let go."""
        one.scroll_into_view_if_needed()
        box = one.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + right, y + down, steps=5)
        if before_release:
            self.page.evaluate(before_release)
        self.page.mouse.up()


class Notebook(Shown):
    """A notebook open in JupyterLab."""

    def __init__(self, page, address, token, name):
        super().__init__(page)
        page.goto(f"{address}/lab/tree/{name}?token={token}&reset")
        page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=60_000)
        page.get_by_text("| Idle").wait_for()  # the status bar: the kernel is there

    def run_all(self, timeout=300):
        """Run every cell; returns when all have a number."""
        self.page.evaluate("() => { jupyterapp.commands.execute('notebook:run-all-cells'); }")
        self.page.wait_for_function(
            """() => {
                const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputArea-prompt')];
                return prompts.length && prompts.every(one => /\\[\\d+\\]/.test(one.textContent));
            }""",
            timeout=1000 * timeout,
        )
