"""INT8 that keeps its accuracy: calibration, schemes, and the search for one that is good enough."""
