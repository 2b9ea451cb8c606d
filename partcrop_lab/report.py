"""An audit as HTML: a summary for notebooks and a self-contained report that opens offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from PIL import Image

from partcrop_lab import plots
from partcrop_lab.audit import verdict as verdicts
from partcrop_lab.audit.exposure import agreement, auc_by_class, exposed_members
from partcrop_lab.errors import BadInput
from partcrop_lab.tables import describe

if TYPE_CHECKING:
    from partcrop_lab.audit import AuditResult
    from partcrop_lab.images import ImageSet

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
.thumbnail { width: 64px; image-rendering: pixelated; margin-right: .4rem; }
pre { background: #f6f6f6; padding: 1rem; font-size: 12px; white-space: pre-wrap; overflow-wrap: anywhere; }
@media print {
  body { margin: 0; max-width: none; font-size: 11px; } h2, h3 { break-after: avoid; }
  tr, .plots img, .verdict { break-inside: avoid; }
}
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
    """An HTML table, numbers to the right; every cell is escaped."""
    numbers = [all(cell[:1] in "0123456789-–∞" for cell in column) for column in zip(*rows, strict=True)]
    sides = ["left", *("right" if right else "left" for right in numbers[1:])]

    def line(cells: list[str], tag: str) -> str:
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


def _exposed_html(result: AuditResult, images: ImageSet | None, count: int = 6) -> str:
    """The members that stand out most and least; with thumbnails where images are given."""
    table = exposed_members(result)
    html = "<p>Share of the non-members that score as high as the member: small for members that are told apart.</p>"
    if result.outcome == verdicts.CONFOUNDED:
        html += "<p><b>The controls tell the sides apart too: here these scores are no measure of membership.</b></p>"
    ends = {"Most exposed members": table.head(count), "Least exposed members": table.tail(count)[::-1]}
    for title, some in ends.items():
        rows = [[one.name, f"{one.score:.2f}", f"{one.nonmembers_above:.3f}"] for one in some.itertuples(index=False)]
        html += f"<h3>{title}</h3>" + (_thumbnails(images, list(some["name"])) if images is not None else "")
        html += _table(["member", "score (log-odds)", "non-members above"], rows)
    return html


def _thumbnails(images: ImageSet, names: list[str]) -> str:
    missing = [name for name in names if name not in images.names]
    if missing:
        raise BadInput(f"the images given for thumbnails lack {missing[0]}; give those of the audited split")
    shown = []
    for name in names:
        pixels = images.batch([images.names.index(name)])[0].permute(1, 2, 0).numpy()
        data = BytesIO()
        Image.fromarray(pixels).save(data, "png")
        source = base64.b64encode(data.getvalue()).decode()
        shown.append(f'<img class="thumbnail" alt="{escape(name)}" src="data:image/png;base64,{source}">')
    return f"<p>{''.join(shown)}</p>"


def _classes_html(result: AuditResult) -> str:
    table = auc_by_class(result)
    if not len(table):
        return ""
    rows = [
        [one.label, str(one.members), str(one.nonmembers), _number(one.auc), _interval(one.low, one.high),
         "–" if np.isnan(one.p_holm) else f"{one.p_holm:.2g}"]
        for one in table.itertuples(index=False)
    ]  # fmt: skip
    head = ["class", "members", "non-members", "AUC", "95 % interval", "p (Holm, over classes)"]
    return f"<h2>By class</h2>{_table(head, rows)}<p>The attacker is the same for all classes.</p>"


def _agreement_html(results: Sequence[AuditResult]) -> str:
    if len(results) < 2:
        return ""
    table = agreement(results)
    rows = [[name, *(f"{value:.2f}" for value in row)] for name, row in zip(table.index, table.to_numpy(), strict=True)]
    text = (
        "Each attack at the threshold that 5 % of the non-members exceed. On the diagonal the share of the members "
        "found; elsewhere the share of those found by the attack of the row that the attack of the column finds too. "
        "Attacks that knew nothing of each other would agree as often as the column's diagonal says."
    )
    return f"<h2>Agreement of attacks</h2>{_table(['', *table.columns], rows)}<p>{escape(text)}</p>"


def _sensitivity_html(table: pd.DataFrame | None) -> str:
    if table is None:
        return ""
    rows = [
        [one.attack, str(one.queries), str(one.seed), _number(one.auc), _interval(one.low, one.high)]
        for one in table.itertuples(index=False)
    ]
    head = ["attack", "queries an image", "seed of crops, folds and attackers", "AUC", "95 % interval"]
    return f"<h2>Sensitivity</h2>{_table(head, rows)}<p>No controls here; none of these decides the verdict.</p>"


def html_report(
    result: AuditResult,
    images: ImageSet | None = None,
    others: Sequence[AuditResult] = (),
    sensitivity: pd.DataFrame | None = None,
) -> str:
    """A whole HTML page, with its style and pictures inside it.

    Args:
        result: an audit.
        images: those of its split, for thumbnails; none are shown without them.
        others: audits of the same split by other attacks.
        sensitivity: the table of `partcrop_lab.audit.sensitivity`.

    Raises:
        BadInput: others of another split, or images without the members.
    """
    auc = result.metrics.loc["auc", "value"]
    pictures = [
        _picture(plots.roc, result, f"ROC on logarithmic axes with controls; AUC {auc:.3f}", 4.8),
        _picture(plots.score_histogram, result, "Histogram of the scores of members and of non-members", 3.6),
    ]
    title = escape(f"Audit of {result.settings['encoder']['name']}")
    needs = "; ".join(result.settings["needs"])
    command = result.settings.get("command")
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{CSS}</style></head><body>
<h1>{title}</h1>
{_verdict_html(result)}
<p>{escape(describe(result))} An audit finds evidence of leakage, never proof of training; the gap between members and
non-members shrinks as more images are seen for fewer epochs.</p>
<h2>Why this verdict</h2><ol>{"".join(f"<li>{escape(step)}</li>" for step in result.reasons)}</ol>
<p>Threat model: {escape(result.settings["threat"])}. The attack needs {escape(needs)}.</p>
<h2>Metrics</h2>{_metrics_html(result.metrics)}
<h2>Controls</h2>{_controls_html(result.controls)}
<h2>Curves</h2><div class="plots">{"".join(pictures)}</div>
{_agreement_html([result, *others])}
<h2>Exposure</h2>{_exposed_html(result, images)}
{_classes_html(result)}
{_sensitivity_html(sensitivity)}
<h2>To reproduce</h2>{f"<pre>{escape(command)}</pre>" if command else ""}
<pre>{escape(json.dumps(result.settings, indent=1))}</pre>
</body></html>
"""
