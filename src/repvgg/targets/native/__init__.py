"""The engine's own format: a Keras model as a plan (`plan.py`), in a file (`file.py`), compiled where it runs."""
