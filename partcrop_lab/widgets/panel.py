"""What every panel is: controls, a drawing of their state, and one line that says what went wrong."""

from __future__ import annotations

import base64
import contextlib
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets as widgets
from IPython import get_ipython

from partcrop_lab.encoders import Encoder
from partcrop_lab.errors import BadInput

ERROR_CLASS = "partcrop-error"
"""The CSS class of the error line, by which tests find it in a saved notebook."""

BUSY_CLASS = "partcrop-busy"
"""The CSS class of the status line while a panel draws, by which tests wait for it."""

STOPPING = " (the stop button &#9632; above the notebook cancels)"
CANCELLED = "cancelled; what is shown is what was there before"


@dataclass(frozen=True)
class Drawing:
    """What a panel shows: a picture as PNG, or as SVG that answers the mouse, and words below it as HTML."""

    png: bytes = b""
    html: str = ""
    svg: str = ""


class Panel(widgets.VBox):
    """Controls above, the drawing of their values below; an error is one readable line, and is never lost.

    The notebook's stop button cancels a drawing that takes long: the picture before it comes back.

    Args:
        title: of the panel.
        controls: widgets by name; their values are the arguments of `draw`.
        draw: called with all values by name whenever one changes; returns what to show.
        button: a label: the drawing is then made at its press alone, and not at every change.
        beside: a widget shown left of the picture.

    Attributes:
        controls: as given.
        picture: the drawing, an image widget.
        plane: the drawing where it is an SVG, an HTML widget.
        words: what stands below it.
        saving: a link that saves the picture.
        error: the error line, empty while all is well.
        bars: where progress bars appear.
        button: the button, or None.

    >>> def draw(size):
    ...     return Drawing(b"", f"size {size}")
    >>> panel = Panel("a panel", {"size": widgets.IntSlider(3)}, draw)
    >>> panel.controls["size"].value = 4
    >>> panel.words.value, panel.error.value
    ('size 4', '')
    """

    def __init__(
        self,
        title: str,
        controls: dict[str, widgets.Widget],
        draw: Callable[..., Drawing],
        button: str | None = None,
        beside: widgets.Widget | None = None,
    ) -> None:
        self.controls, self._draw, self._quiet, self._title = controls, draw, False, title
        self._stopped = False
        self.picture = widgets.Image(format="png", layout=widgets.Layout(max_width="100%", object_fit="contain"))
        self.words, self.error, self.status, self.saving, self.plane = (widgets.HTML() for _ in range(5))
        self.error.add_class(ERROR_CLASS)
        self.bars = widgets.Output()
        self.bar = widgets.FloatProgress(max=1.0, layout=widgets.Layout(display="none", width="16rem"))
        self.button = widgets.Button(description=button, button_style="primary") if button else None
        for control in controls.values():
            control.style.description_width = "5.5rem"
            if self.button is None:
                control.observe(lambda change: self.update(), "value")
        if self.button is not None:
            self.button.on_click(lambda pressed: self.update())
        wrapped = widgets.Layout(flex_flow="row wrap", align_items="flex-start")
        spaced = widgets.Layout(grid_gap="0.8rem")
        super().__init__(
            [
                widgets.HTML(f"<b>{escape(title)}</b>"),
                widgets.Box(list(controls.values()), layout=wrapped),
                widgets.HBox([*filter(None, [self.button]), self.bar, self.status, self.saving], layout=spaced),
                self.error,
                self.bars,
                widgets.Box([*filter(None, [beside]), self.picture, self.plane], layout=wrapped),
                self.words,
            ]
        )
        self.update()

    @property
    def values(self) -> dict[str, Any]:
        """The value of every control by its name."""
        return {name: control.value for name, control in self.controls.items()}

    def update(self) -> None:
        """Draw the present values, or show why that cannot be done."""
        if self._quiet:
            return
        self._busy(True)
        start, before = time.perf_counter(), self.picture.value
        with self.bars, self._stop_noted():
            try:
                drawing = self._draw(**self.values)
                self._heed_stop()
                self.picture.value, self.words.value, self.error.value = drawing.png, drawing.html, ""
                self.plane.value, self.picture.layout.display = drawing.svg, "none" if drawing.svg else None
                self.saving.value = _link(drawing, self._title)
            except KeyboardInterrupt:  # the notebook's stop button
                self.picture.value, self.error.value = before, _error_line(ValueError(CANCELLED))
            except Exception as error:  # whatever it is, the reader of the notebook must see it
                self.error.value = _error_line(error)
        if get_ipython() is not None:  # a finished bar is closed: a notebook saved with it shows an error in its place
            self.bars.clear_output()
        self._busy(False)
        self.status.value = f"<small>{time.perf_counter() - start:.2f} s</small>"

    def guarded(self, callback: Callable[..., None]) -> Callable[..., None]:
        """A callback whose errors are shown in this panel, too."""

        def called(*arguments: Any) -> None:
            try:
                callback(*arguments)
            except Exception as error:  # as in `update`
                self.error.value = _error_line(error)

        return called

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Change several controls within, and draw once at the end."""
        self._quiet, before = True, self._quiet
        try:
            yield
        finally:
            self._quiet = before
        self.update()

    def advance(self, share: float, text: str, png: bytes | None = None) -> None:
        """Show how far long work has come, from 0 to 1, and a picture on the way, which goes if the work is stopped."""
        self._heed_stop()
        self.bar.layout.display, self.bar.value = "flex", share
        self.status.value = f"<small>{escape(text)}</small>"
        if png is not None:
            self.picture.value = png

    @contextlib.contextmanager
    def _stop_noted(self) -> Iterator[None]:
        """Within, the stop button is remembered: Python drops an interrupt that falls into a destructor."""

        def stop(number: int, frame: Any) -> None:
            self._stopped = True
            raise KeyboardInterrupt

        self._stopped = False
        if threading.current_thread() is not threading.main_thread():  # elsewhere no signal arrives
            yield
            return
        before = signal.signal(signal.SIGINT, stop)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)

    def _heed_stop(self) -> None:
        if self._stopped:
            raise KeyboardInterrupt

    def _busy(self, busy: bool) -> None:
        if busy:
            self.status.value = f"<small>working ...{STOPPING if self.button else ''}</small>"
            self.status.add_class(BUSY_CLASS)
        else:
            self.bar.layout.display = "none"
            self.status.remove_class(BUSY_CLASS)
        if self.button is not None:
            self.button.disabled = busy


def by_name(encoders: Sequence[Encoder]) -> dict[str, Encoder]:
    """Encoders by their names, which a panel shows.

    Raises:
        BadInput: two have the same, or there are none.
    """
    named = {encoder.name: encoder for encoder in encoders}
    if not named or len(named) < len(encoders):
        twice = sorted({one.name for one in encoders if [two.name for two in encoders].count(one.name) > 1})
        found = f"two of the encoders are both called {twice[0]}" if twice else "there are no encoders"
        raise BadInput(f"{found}; a panel needs at least one, each with a name of its own (encoder.name = ...)")
    return named


def _link(drawing: Drawing, title: str) -> str:
    """A link that saves a picture under the panel's name, in the browser alone; nothing where there is no picture."""
    content, kind = (drawing.svg.encode(), "svg") if drawing.svg else (drawing.png, "png")
    if not content:
        return ""
    name, data = f"{title.lower().replace(' ', '-')}.{kind}", base64.b64encode(content).decode()
    mime = "image/svg+xml" if kind == "svg" else "image/png"
    return f'<small><a download="{escape(name)}" href="data:{mime};base64,{data}">save figure</a></small>'


def _error_line(error: Exception) -> str:
    """One readable line; of errors that are not the user's, the way to them is folded away below it."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    line = f'<b style="color: #B00020">&#9888; {escape(kind + (str(error) or "no message"))}</b>'
    if isinstance(error, ValueError):
        return line
    trace = escape("".join(traceback.format_exception(error)))
    return f"{line}<details><summary>where</summary><pre>{trace}</pre></details>"
