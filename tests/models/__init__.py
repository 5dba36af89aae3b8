"""Macros and models on a real PostgreSQL: the window, the materialization, the dialect, the conventions."""
