"""The documentation's site: `make docs` builds it from README.md, docs/, the docstrings and the command line."""
