"""The oracle velocity of a data set: `Oracle(data)`, and `Oracle.from_source` for data that stay on disk."""

from flowjax.oracle.oracle import Oracle, OracleOutput

__all__ = ["Oracle", "OracleOutput"]
