"""What RepVGG is, without Keras: architectures, the table of variants, what they cost, and the fold."""
