"""Programs to read, run and copy from: ``python -m examples.NAME``."""
