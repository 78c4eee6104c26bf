"""PyTorch's file format, read and written without torch and without running anything that a file holds."""
