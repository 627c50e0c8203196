"""An attempt's output in the run log. Pure."""

from runnable_ci.util.bounded_json import Record


class LogFile(Record):
    """Where an attempt's output is: one file of bytes in the order they came, and who wrote which of them."""

    data_hash: str
    size: int
    stdout_bytes: int
    stderr_bytes: int
    index_hash: str = ""
    """sha256 of the index (lines `o 120`, `e 14`: stream and byte count); empty where there was one stream only."""
    index_size: int = 0
