"""A laptop-sized copy of the outside world, for the demo and the tests.

Servers (`postgres`, `crm`) are context managers that leave nothing behind; generators (`world`,
`flights`) make the data that the servers hold, deterministic by seed. Nothing here is imported by
ingestion or by the models: they see the sandbox only through addresses in their settings.
"""
