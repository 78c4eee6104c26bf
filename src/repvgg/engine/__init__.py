"""A compiler of plain convolutional networks to machine code for CPUs."""
