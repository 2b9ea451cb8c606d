"""The search for public neighbours: how long it takes beside scikit-learn's, and how much memory it needs.

``python benchmarks/neighbours.py`` searches the 100 nearest of 50,000 embeddings of width 384 for 2,000 queries, in one
run beside scikit-learn's brute force, and measures the peak memory of processes that search 50,000 to 1.3 million
embeddings, as many as ImageNet has images, from a file on disk (float16, 1 GB).
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from measuring import in_a_process, in_turn, resident
from sklearn.neighbors import NearestNeighbors

from partcrop_lab.dejavu import PublicIndex

WIDTH, NEIGHBOURS, CLASSES = 384, 100, 1000


def stream(path: str, queries: int) -> None:
    """Search a file of embeddings and print this process's peak resident bytes and the seconds (Linux)."""
    embeddings = np.load(path, mmap_mode="r")
    asked = torch.randn(queries, WIDTH, generator=torch.Generator().manual_seed(1))
    start = time.perf_counter()
    PublicIndex(embeddings, np.zeros(len(embeddings), np.int64)).search(asked, NEIGHBOURS)
    taken = time.perf_counter() - start
    print(resident("RssAnon"), resident(), taken)


def peak_memory(count: int, queries: int, folder: Path) -> tuple[int, int, float]:
    """Resident bytes without the file's own pages, with them at the peak, and seconds, of a process of its own."""
    path, source = folder / f"{count}.npy", np.random.default_rng(0)
    written = np.lib.format.open_memmap(path, "w+", np.float16, (count, WIDTH))
    for start in range(0, count, 50_000):
        written[start : start + 50_000] = source.normal(size=written[start : start + 50_000].shape)
    written.flush()
    own, peak, taken = in_a_process("neighbours", f"stream({str(path)!r}, {queries})")
    path.unlink()
    return int(own), int(peak), float(taken)


def main(
    queries: Annotated[int, typer.Option(help="How many are asked.")] = 2000,
    public: Annotated[int, typer.Option(help="Embeddings searched in the comparison.")] = 50_000,
    times: Annotated[int, typer.Option(help="Runs, of which the median counts.")] = 5,
) -> None:
    source = np.random.default_rng(0)
    embeddings, asked = (source.normal(size=(n, WIDTH)).astype(np.float32) for n in (public, queries))
    index = PublicIndex(embeddings, source.integers(0, CLASSES, public))
    other = NearestNeighbors(n_neighbors=NEIGHBOURS, algorithm="brute").fit(embeddings)
    ours, theirs = in_turn(
        lambda: index.search(torch.from_numpy(asked), NEIGHBOURS),
        lambda: other.kneighbors(asked, return_distance=False),
        times,
        clock=time.perf_counter,
    )
    print(f"{queries} queries, {public} embeddings of width {WIDTH}, {torch.get_num_threads()} threads:")
    print(f"  ours {ours:.2f} s, scikit-learn's brute force {theirs:.2f} s, {theirs / ours:.1f} times as long")
    with tempfile.TemporaryDirectory() as folder:
        for count in (50_000, 300_000, 1_300_000):
            own, peak, taken = peak_memory(count, queries, Path(folder))
            size = count * WIDTH * 2 / 2**20
            print(f"  {count:9} embeddings on disk ({size:4.0f} MiB): {own / 2**20:.0f} MiB of its own, ", end="")
            print(f"{peak / 2**20:.0f} MiB at the peak with the file's pages, {taken:.1f} s")


if __name__ == "__main__":
    typer.run(main)
