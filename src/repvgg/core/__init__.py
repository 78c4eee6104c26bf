"""What RepVGG is, without Keras: architectures as data, and the fold."""
