"""The ground: errors, files, metadata, optional packages, and what frameworks are told before they start.

Everything may stand on it.
"""
