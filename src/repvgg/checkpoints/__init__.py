"""Checkpoint files of other libraries, read and written without them and without running anything they hold."""
