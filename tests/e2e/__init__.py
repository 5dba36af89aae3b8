"""From the sources to the marts, on real servers, against the oracle."""
