"""A table of published figures as the package ships one, with figures that a test invents."""

import pyarrow as pa
import pyarrow.parquet as pq

from seeless.eval import published

PLAIN = {
    **{"method": "FastV", "model": "Tiny", "benchmark": "SCENES", "budget": "36", "metric": "accuracy (%)"},
    **{"value": 50.0, "source": "page", "citation": "A page", "setting": "", "suspect": "", "strategy": "fastv"},
    **{"checkpoint": "tiny", "task": "mme", "task_metric": "acc", "scale": 100.0},
    **{"tokens": 36, "of": 144, "crops": 1, "share": 0.25},
}


def write_table(file, monkeypatch, *rows):
    """Let the package read these figures, each a change of `PLAIN`, in place of its own."""
    schema = pq.read_schema(published.PUBLISHED)
    pq.write_table(pa.Table.from_pylist([{**PLAIN, **row} for row in rows], schema), file)
    monkeypatch.setattr(published, "PUBLISHED", file)
