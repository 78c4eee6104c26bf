"""The paper's table and figure on this machine: networks, runtimes and files that take turns."""
