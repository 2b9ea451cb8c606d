"""An audit as HTML: a summary for notebooks and a self-contained report that opens offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from partcrop_lab import plots
from partcrop_lab.tables import describe

if TYPE_CHECKING:
    from partcrop_lab.audit import AuditResult

COLOURS = {"Evidence of leakage": "#D55E00", "Confounded": "#B07D00", "No evidence of leakage": "#0072B2"}
MEANINGS = {
    "untrained": "an encoder of the same architecture, never trained",
    "pixels": "pixel statistics, with no encoder",
    "permuted": "the attack itself, fitted on permuted labels (range of its fits)",
}
CSS = """
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .15rem .8rem; border-bottom: 1px solid #ddd; }
.verdict { border-left: .5rem solid; padding: .5rem 1rem; background: #f6f6f6; font-size: 1.1em; }
.released { border: 2px solid #D55E00; color: #D55E00; padding: .3rem 1rem; font-weight: bold; }
.plots { display: flex; flex-wrap: wrap; gap: 1rem; } .plots img { max-width: 100%; }
pre { background: #f6f6f6; padding: 1rem; overflow: auto; font-size: 12px; }
@media print { body { margin: 0; max-width: none; } h2, .plots img { break-inside: avoid; } }
"""
METRICS = {
    "auc": "AUC",
    "balanced_accuracy": "balanced accuracy",
    "tpr_at_1_fpr": "TPR at 1 % FPR",
    "tpr_at_0.1_fpr": "TPR at 0.1 % FPR",
    "epsilon_lower": "epsilon, lower bound",
    "f1": "F1",
}


def _number(value: float) -> str:
    return f"{value:.3f}" if np.isfinite(value) else "∞" if value == np.inf else "–"


def _interval(low: float, high: float) -> str:
    return "–" if np.isnan(low) else f"{_number(low)} to {_number(high)}"


def _table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table; every cell is escaped."""

    def line(cells: list[str], tag: str) -> str:
        sides = ["left", *["right"] * (len(cells) - 2), "left"]
        written = (f'<{tag} style="text-align: {side}">{escape(cell)}</{tag}>' for cell, side in zip(cells, sides))
        return f"<tr>{''.join(written)}</tr>"

    return f"<table><thead>{line(head, 'th')}</thead><tbody>{''.join(line(row, 'td') for row in rows)}</tbody></table>"


def _metrics_html(metrics: pd.DataFrame) -> str:
    rows = [
        [METRICS.get(name, name), _number(row["value"]), _interval(row["low"], row["high"]), row["note"]]
        for name, row in metrics.iterrows()
    ]
    return _table(["metric", "value", "95 % interval", "note"], rows)


def _controls_html(controls: pd.DataFrame) -> str:
    if not len(controls):
        return "<p>No controls were run, so nothing rules out that the two sets differ by more than membership.</p>"
    rows = [
        [name, _number(row["auc"]), _interval(row["low"], row["high"]), f"{row['p_value']:.2g}", MEANINGS.get(name, "")]
        for name, row in controls.iterrows()
    ]
    return _table(["control", "AUC", "95 % interval", "p", "what it is"], rows)


def _verdict_html(result: AuditResult) -> str:
    first, rest = result.outcome, result.verdict.removeprefix(result.outcome)
    colour = COLOURS.get(first, "#222222")
    html = f'<p class="verdict" style="border-color: {colour}"><b>{escape(first)}</b>{escape(rest)}</p>'
    if result.settings["protocol"] == "released":
        html = f'<p class="released">{escape(plots.RELEASED)}</p>' + html
    return html + (f'<p class="released">{escape(result.fault)}</p>' if result.fault else "")


def html_summary(result: AuditResult) -> str:
    """The verdict, the metrics with their intervals and the controls, as a piece of HTML for a notebook."""
    return (
        '<div class="partcrop-audit">'
        f"{_verdict_html(result)}{_metrics_html(result.metrics)}{_controls_html(result.controls)}"
        f"<p><small>{escape(describe(result))}</small></p></div>"
    )


def _picture(draw: Callable[[AuditResult, Axes], Axes], result: AuditResult, alt: str, height: float) -> str:
    data = plots.png(lambda figure: draw(result, figure.add_subplot()), 5.2, height, dpi=130)
    source = f"data:image/png;base64,{base64.b64encode(data).decode()}"
    return f'<img width="440" alt="{escape(alt)}" src="{source}">'


def html_report(result: AuditResult) -> str:
    """A whole HTML page, with its style and pictures inside it.

    Args:
        result: an audit.
    """
    auc = result.metrics.loc["auc", "value"]
    pictures = [
        _picture(plots.roc, result, f"ROC on logarithmic axes with controls; AUC {auc:.3f}", 4.8),
        _picture(plots.score_histogram, result, "Histogram of the scores of members and of non-members", 3.6),
    ]
    title = escape(f"Audit of {result.settings['encoder']['name']}")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{CSS}</style></head><body>
<h1>{title}</h1>
{_verdict_html(result)}
<p>{escape(describe(result))} An audit finds evidence of leakage, never proof of training; the gap between members and
non-members shrinks as more images are seen for fewer epochs.</p>
<h2>Metrics</h2>{_metrics_html(result.metrics)}
<h2>Controls</h2>{_controls_html(result.controls)}
<h2>Curves</h2><div class="plots">{"".join(pictures)}</div>
<h2>To reproduce</h2><pre>{escape(json.dumps(result.settings, indent=1))}</pre>
</body></html>
"""
