"""Plain Keras: the deploy form in a `.keras` file. `repvgg.runners.keras` runs it."""
