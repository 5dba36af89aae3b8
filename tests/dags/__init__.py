"""The DAGs: their structure in milliseconds, and real processes that run them."""
