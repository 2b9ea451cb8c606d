"""What the long benchmarks share: a table that grows by one finished piece of work at a time, and resumes; its rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
from tqdm.auto import tqdm

from partcrop_lab.audit import AuditResult
from partcrop_lab.store import atomic


def audit_columns(result: AuditResult) -> dict[str, Any]:
    """What a row of a table says of an audit: sizes, AUC with its interval, p-values with the controls', outcome."""
    sizes = {name: result.settings[name] for name in ("members", "nonmembers", "queries", "seed")}
    auc = result.metrics.loc["auc", ["value", "low", "high"]].rename({"value": "auc"}).round(4).to_dict()
    controls = {f"p_{name}": p for name, p in result.controls.p_value.items()}
    return {**sizes, **auc, "p_value": result.p_value, **controls, "outcome": result.outcome}


def grow(
    out: Path,
    names: Sequence[str],
    wanted: dict[tuple[Any, ...], tuple[Any, ...]],
    work: Callable[..., list[dict[str, Any]]],
    jobs: int = 1,
    sort: Sequence[str] = (),
) -> pd.DataFrame:
    """The table in a CSV with all that is wanted: what it lacks is worked out, and written as soon as it is.

    Args:
        out: the CSV.
        names: columns that tell finished pieces of work from each other.
        wanted: the arguments of `work` by the values of those columns.
        work: gives the rows of one piece; called in processes of its own where there are several jobs.
        jobs: pieces at a time.
        sort: columns to sort by; in the order of finishing where there are none.
    """
    rows = pd.read_csv(out).to_dict("records") if out.exists() else []
    done = {tuple(row[name] for name in names) for row in rows}
    missing = [arguments for key, arguments in wanted.items() if key not in done]
    parallel = joblib.Parallel(jobs, return_as="generator_unordered", pre_dispatch=jobs)
    found = parallel(joblib.delayed(work)(*arguments) for arguments in missing)
    for some in tqdm(found, desc=out.stem, total=len(missing)):
        rows += some
        table = pd.DataFrame(rows)
        with atomic(out) as temporary:
            (table.sort_values(list(sort)) if sort else table).to_csv(temporary, index=False, lineterminator="\n")
    return pd.DataFrame(rows)
