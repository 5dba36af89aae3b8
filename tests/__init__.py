"""The tests: on real servers, against numbers from an independent source."""
